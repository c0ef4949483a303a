#include "fuse/mountpoint.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>

#include "engine/errors.h"
#include "fuse/mount_table.h"

namespace pellucid::fuse {
namespace {

[[noreturn]] void ThrowInaccessible(const std::filesystem::path& path,
                                    int error) {
  const std::string name = path.string();
  switch (error) {
    case ENOENT:
      throw UsageError(fmt::format(
          "{0}: the mountpoint does not exist; make a directory that shows the "
          "file `disk` (mkdir {0}), or a file that the plaintext replaces "
          "(touch {0})",
          name));
    case ENOTCONN:
      throw UsageError(fmt::format(
          "{0}: a file system whose process has died is still mounted here; "
          "unmount it first (fusermount3 -u {0})",
          name));
    default:
      throw IoError(error,
                    fmt::format("{}: cannot look at the mountpoint: {}", name,
                                std::generic_category().message(error)));
  }
}

std::filesystem::path Resolve(const std::filesystem::path& path) {
  try {
    return ResolveMountpoint(path);
  } catch (const std::filesystem::filesystem_error& error) {
    ThrowInaccessible(path, error.code().value());
  }
}

}  // namespace

Mountpoint CheckMountpoint(const std::filesystem::path& path,
                           const std::filesystem::path& image) {
  if (path.empty()) throw UsageError("the name of the mountpoint is empty");
  const std::filesystem::path resolved = Resolve(path);
  if (const auto mount = FindMount(resolved);
      mount && mount->type == kFilesystemType) {
    throw UsageError(fmt::format(
        "{0}: {1} is already mounted here; unmount it first (pellucid umount "
        "{0})",
        path.string(), mount->source));
  }
  struct stat status = {};
  if (stat(resolved.c_str(), &status) != 0) ThrowInaccessible(path, errno);
  struct stat image_status = {};
  if (stat(image.c_str(), &image_status) == 0 &&
      image_status.st_dev == status.st_dev &&
      image_status.st_ino == status.st_ino) {
    throw UsageError(fmt::format(
        "{}: the image cannot be its own mountpoint; choose another file or a "
        "directory",
        path.string()));
  }
  if (S_ISDIR(status.st_mode)) return {resolved, MountpointKind::kDirectory};
  if (S_ISREG(status.st_mode)) return {resolved, MountpointKind::kFile};
  throw UsageError(fmt::format(
      "{}: a mountpoint is a directory or a regular file, and this is neither; "
      "choose another one",
      path.string()));
}

}  // namespace pellucid::fuse
