#ifndef PELLUCID_TOOLS_COPY_ARGUMENTS_H_
#define PELLUCID_TOOLS_COPY_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "tools/copy_pieces.h"
#include "tools/ordered_hashes.h"

namespace pellucid::cli {

// The options that every copy of plaintext takes, in whichever direction. Not
// synchronised.
class CopyArguments {
 public:
  CopyArguments() = default;
  CopyArguments(const CopyArguments&) = delete;
  CopyArguments& operator=(const CopyArguments&) = delete;

  // Adds the options to `options`, which keeps pointers into this object.
  // `offset_help` says what begins at --offset.
  void AddTo(boost::program_options::options_description& options,
             const char* offset_help, const char* hash_help,
             const char* no_sparse_help);

  // What the user said. Call after parsing. Throw UsageError.
  uint64_t Offset() const;
  unsigned Threads() const;
  // Empty without --hash.
  std::vector<std::string> HashNames() const;
  // Prints them as the user wants it.
  void PrintHashes(const std::vector<Digest>& digests, const std::string& path,
                   ByteRange part, std::FILE* stream) const;
  bool sparse() const { return !no_sparse_; }
  bool quiet() const { return quiet_; }

 private:
  std::string offset_;
  std::string hash_;
  bool json_ = false;
  std::string threads_;
  bool no_sparse_ = false;
  bool quiet_ = false;
};

// The value of --threads; empty: one for each processor. Throws UsageError.
unsigned ParseThreads(const std::string& value);

// The names of hashes between commas, as crypto::MakeHasher() takes them, in
// lower case; "blake2b" is that of b2sum. Throws UsageError that names
// `option`.
std::vector<std::string> ParseHashNames(const std::string& option,
                                        const std::string& names);

// What `sha256sum` and its like print for `path` and take back with --check; if
// there are several hashes with --tag, since the length would not tell them
// apart. `cksum --check` takes all of them.
std::string FormatHashLines(const std::vector<Digest>& digests,
                            const std::string& path);
// The same as one object, with what was hashed.
std::string FormatHashJson(const std::vector<Digest>& digests,
                           const std::string& path, ByteRange part);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_COPY_ARGUMENTS_H_
