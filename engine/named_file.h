#ifndef PELLUCID_ENGINE_NAMED_FILE_H_
#define PELLUCID_ENGINE_NAMED_FILE_H_

#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include "engine/errors.h"

namespace pellucid {

// A file that an image names as its backing or data file.
struct NamedFile {
  std::filesystem::path path;
  std::string format;  // "qcow2", "raw", "luks"; empty if nobody says.
};

// Resolves `name` as the image `named_by` spells it: a path, relative to the
// folder of `named_by`; "file:PATH"; or QEMU's "json:{...}" for a local file.
// `format` is what the image says besides. Throws Unsupported for names that
// are no local files (nbd://..., rbd:...) and for other formats, CorruptImage
// for a name that cannot be read.
NamedFile ResolveNamedFile(const std::string& name, const std::string& format,
                           const std::filesystem::path& named_by);

// A file that an image names and the user has not allowed.
class NotAllowed : public UsageError {
 public:
  using UsageError::UsageError;
};

// Which files an image may name. Immutable.
class NamedFileRules {
 public:
  // `allowed_paths` as OpenOptions has them. Throws UsageError for one that is
  // not there.
  explicit NamedFileRules(
      const std::vector<std::filesystem::path>& allowed_paths);

  // `path_fd` is open at `file`, which `status` is of. It is judged by where it
  // really is, whatever links lead there. Throws NotAllowed, which says what
  // would allow it, and IoError.
  void Check(int path_fd, const struct stat& status,
             const std::filesystem::path& file) const;

 private:
  std::vector<std::filesystem::path> allowed_;  // Absolute, without links.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_NAMED_FILE_H_
