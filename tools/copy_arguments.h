#ifndef PELLUCID_TOOLS_COPY_ARGUMENTS_H_
#define PELLUCID_TOOLS_COPY_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "crypto/hash.h"

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
  // Null without --hash.
  std::unique_ptr<crypto::Hasher> MakeHasher() const;
  bool sparse() const { return !no_sparse_; }
  bool quiet() const { return quiet_; }

 private:
  std::string offset_;
  std::string hash_;
  std::string threads_;
  bool no_sparse_ = false;
  bool quiet_ = false;
};

// Finishes the hash and prints the line that `sha256sum` prints for `path`, and
// takes back with --check.
void PrintHash(crypto::Hasher& hasher, const std::string& path,
               std::FILE* stream);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_COPY_ARGUMENTS_H_
