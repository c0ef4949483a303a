#include "engine/layer_file.h"

#include <fmt/format.h>

#include <cerrno>

#include "engine/errors.h"

namespace pellucid {
namespace {

std::unique_ptr<WritableFileDevice> OpenWritable(
    const std::filesystem::path& file, const HostFileCheck& check) {
  try {
    return WritableFileDevice::Open(file, check);
  } catch (const ImageLocked& error) {
    if (!error.readers_may_join()) throw;
    throw ImageLocked(
        fmt::format("{}, or read only yourself with --read-only", error.what()),
        true);
  } catch (const IoError& error) {
    const int host_errno = error.host_errno();
    if (host_errno != EACCES && host_errno != EPERM && host_errno != EROFS) {
      throw;
    }
    throw IoError(host_errno,
                  fmt::format("{}; --read-only does without", error.what()));
  }
}

}  // namespace

LayerFile LayerFile::Open(const std::filesystem::path& file, FileAccess access,
                          const HostFileCheck& check) {
  LayerFile opened;
  if (access == FileAccess::kWrite) {
    opened.writable = OpenWritable(file, check);
  } else {
    opened.read_only = FileDevice::Open(file,
                                        access == FileAccess::kReadShared
                                            ? FileDevice::Sharing::kForced
                                            : FileDevice::Sharing::kExclusive,
                                        check);
  }
  return opened;
}

BlockDevice& LayerFile::device() const {
  if (writable) return *writable;
  return *read_only;
}

const struct stat& LayerFile::host_stat() const {
  return writable ? writable->host_stat() : read_only->host_stat();
}

bool LayerFile::keeps_access_time() const {
  return writable ? writable->keeps_access_time()
                  : read_only->keeps_access_time();
}

}  // namespace pellucid
