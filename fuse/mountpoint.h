#ifndef PELLUCID_FUSE_MOUNTPOINT_H_
#define PELLUCID_FUSE_MOUNTPOINT_H_

#include <filesystem>
#include <vector>

#include "engine/open_image.h"

namespace pellucid::fuse {

enum class MountpointKind {
  kFile,       // The plaintext takes its place.
  kDirectory,  // It shows the plaintext as the file `disk`.
};

struct Mountpoint {
  std::filesystem::path path;  // Absolute, without links.
  MountpointKind kind;
};

// The name of the plaintext in a root directory.
inline constexpr char kDiskName[] = "disk";

// Where the plaintext is once something is mounted.
std::filesystem::path PlaintextFileOf(const Mountpoint& mountpoint);

// Looks whether an image that is in `image_files`, as far as the command line
// names them, can be mounted at `path`. Throws UsageError, which says what to
// do instead, and IoError.
Mountpoint CheckMountpoint(
    const std::filesystem::path& path,
    const std::vector<std::filesystem::path>& image_files);

// The same for the files that turned out to belong to the image.
void CheckIsNoImageFile(const Mountpoint& mountpoint,
                        const std::vector<HostFileId>& image_files);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_MOUNTPOINT_H_
