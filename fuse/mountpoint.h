#ifndef PELLUCID_FUSE_MOUNTPOINT_H_
#define PELLUCID_FUSE_MOUNTPOINT_H_

#include <filesystem>

namespace pellucid::fuse {

enum class MountpointKind {
  kFile,       // The plaintext takes its place.
  kDirectory,  // It shows the plaintext as the file `disk`.
};

struct Mountpoint {
  std::filesystem::path path;  // Absolute, without links.
  MountpointKind kind;
};

// Looks whether `image` can be mounted at `path`. Throws UsageError, which says
// what to do instead, and IoError.
Mountpoint CheckMountpoint(const std::filesystem::path& path,
                           const std::filesystem::path& image);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_MOUNTPOINT_H_
