#include "fuse/mountpoint.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "engine/errors.h"
#include "engine/io_error.h"
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
      ThrowIoError(error,
                   fmt::format("{}: cannot look at the mountpoint", name));
  }
}

std::filesystem::path Resolve(const std::filesystem::path& path) {
  try {
    return ResolveMountpoint(path);
  } catch (const std::filesystem::filesystem_error& error) {
    ThrowInaccessible(path, error.code().value());
  }
}

void RefuseImageFiles(const std::filesystem::path& path,
                      const struct stat& status,
                      const std::vector<HostFileId>& image_files) {
  if (std::ranges::find(image_files, HostFileId::Of(status)) ==
      image_files.end()) {
    return;
  }
  throw UsageError(fmt::format(
      "{}: this file belongs to the image, which cannot be its own mountpoint; "
      "choose another file or a directory",
      path.string()));
}

}  // namespace

std::filesystem::path PlaintextFileOf(const Mountpoint& mountpoint) {
  return mountpoint.kind == MountpointKind::kFile ? mountpoint.path
                                                  : mountpoint.path / kDiskName;
}

Mountpoint CheckMountpoint(
    const std::filesystem::path& path,
    const std::vector<std::filesystem::path>& image_files) {
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
  std::vector<HostFileId> ids;
  for (const std::filesystem::path& file : image_files) {
    struct stat file_status = {};
    if (stat(file.c_str(), &file_status) == 0) {
      ids.push_back(HostFileId::Of(file_status));
    }
  }
  RefuseImageFiles(path, status, ids);
  if (S_ISDIR(status.st_mode)) return {resolved, MountpointKind::kDirectory};
  if (S_ISREG(status.st_mode)) return {resolved, MountpointKind::kFile};
  throw UsageError(fmt::format(
      "{}: a mountpoint is a directory or a regular file, and this is neither; "
      "choose another one",
      path.string()));
}

void CheckIsNoImageFile(const Mountpoint& mountpoint,
                        const std::vector<HostFileId>& image_files) {
  struct stat status = {};
  if (stat(mountpoint.path.c_str(), &status) != 0) {
    ThrowInaccessible(mountpoint.path, errno);
  }
  RefuseImageFiles(mountpoint.path, status, image_files);
}

}  // namespace pellucid::fuse
