#ifndef PELLUCID_ENGINE_NAMED_FILE_H_
#define PELLUCID_ENGINE_NAMED_FILE_H_

#include <filesystem>
#include <string>

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

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_NAMED_FILE_H_
