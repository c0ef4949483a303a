#ifndef PELLUCID_TOOLS_MANIFEST_ARGUMENTS_H_
#define PELLUCID_TOOLS_MANIFEST_ARGUMENTS_H_

#include <boost/program_options/options_description.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/new_file.h"
#include "engine/open_image.h"
#include "tools/manifest_format.h"
#include "tools/manifest_writer.h"

namespace pellucid::cli {

// The options that ask for a manifest. Not synchronised.
class ManifestArguments {
 public:
  ManifestArguments() = default;
  ManifestArguments(const ManifestArguments&) = delete;
  ManifestArguments& operator=(const ManifestArguments&) = delete;

  // Adds the options to `options`, which keeps pointers into this object.
  void AddTo(boost::program_options::options_description& options);

  bool wanted() const { return !file_.empty(); }
  const std::string& file() const { return file_; }

  // Before anybody has to type a passphrase: throws UsageError for values that
  // the options do not take, for options that need --manifest, and if there is
  // a file of that name, unless `overwrite`.
  void Check(bool overwrite) const;
  // Throws UsageError if the manifest is one of `files`, what the copy is made
  // from and goes to.
  void CheckIsNone(const std::vector<HostFileId>& files) const;

  // Sets what the user said: chunk_size and algorithms. Throws UsageError.
  void Describe(ManifestHeader& header) const;

 private:
  std::string file_;
  std::string chunk_size_;
  std::string chunk_hash_;
};

// A manifest in the making; gone again unless it is kept.
struct NewManifest {
  // Throws UsageError and IoError.
  NewManifest(const ManifestArguments& arguments, bool overwrite,
              const ManifestHeader& header)
      : file(arguments.file(), overwrite), writer(file.device(), header) {}

  NewFile file;
  ManifestWriter writer;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MANIFEST_ARGUMENTS_H_
