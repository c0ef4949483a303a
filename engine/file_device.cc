#include "engine/file_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/errors.h"
#include "engine/image_locks.h"

namespace pellucid {
namespace {

[[noreturn]] void ThrowHostError(const std::filesystem::path& file, int error,
                                 const std::string& what) {
  throw IoError(error, fmt::format("{}: cannot {}: {}", file.native(), what,
                                   std::generic_category().message(error)));
}

int OpenReadOnly(const std::filesystem::path& file) {
  // Not blocking, so that a FIFO without a writer is refused, not waited for.
  constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  int fd = open(file.c_str(), kFlags | O_NOATIME);
  if (fd < 0 && errno == EPERM) fd = open(file.c_str(), kFlags);
  if (fd < 0) ThrowHostError(file, errno, "open it for reading");
  return fd;
}

}  // namespace

FileDevice::FileDevice(std::filesystem::path file, int fd)
    : file_(std::move(file)), fd_(fd) {}

FileDevice::~FileDevice() { close(fd_); }

std::unique_ptr<FileDevice> FileDevice::Open(const std::filesystem::path& file,
                                             Sharing sharing) {
  std::unique_ptr<FileDevice> device(new FileDevice(file, OpenReadOnly(file)));
  if (fstat(device->fd_, &device->stat_) != 0) {
    ThrowHostError(file, errno, "stat it");
  }
  const mode_t mode = device->stat_.st_mode;
  if (!S_ISREG(mode) && !S_ISBLK(mode)) {
    throw UsageError(fmt::format(
        "{}: is a {}; name a regular file or a block device", file.native(),
        S_ISDIR(mode)    ? "directory"
        : S_ISFIFO(mode) ? "FIFO"
        : S_ISCHR(mode)  ? "character device"
                         : "special file"));
  }
  const off_t end = lseek(device->fd_, 0, SEEK_END);
  if (end < 0) ThrowHostError(file, errno, "find its size");
  device->size_ = static_cast<uint64_t>(end);
  if (sharing == Sharing::kForced) {
    LockForForcedReading(device->fd_);
  } else {
    LockForReading(device->fd_, file);
  }
  return device;
}

void FileDevice::Read(uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n =
        pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      ThrowHostError(
          file_, errno,
          fmt::format("read {} bytes at offset {}", out.size(), offset));
    }
    if (n == 0) {
      throw IoError(EIO, fmt::format("{}: ends at offset {} although it was {} "
                                     "bytes long when it was opened",
                                     file_.native(), offset, size_));
    }
    offset += static_cast<uint64_t>(n);
    out = out.subspan(static_cast<size_t>(n));
  }
}

Extent FileDevice::ExtentAt(uint64_t offset, uint64_t max_length) {
  const uint64_t length = std::min(max_length, size_ - offset);
  const auto at = static_cast<off_t>(offset);
  const off_t data = lseek(fd_, at, SEEK_DATA);
  if (data < 0) {
    // ENXIO: a hole up to the end. Anything else: the host cannot tell.
    return {.length = length, .is_hole = errno == ENXIO};
  }
  if (data > at) {
    return {.length = std::min(length, static_cast<uint64_t>(data - at)),
            .is_hole = true};
  }
  const off_t hole = lseek(fd_, at, SEEK_HOLE);
  if (hole <= at) return {.length = length, .is_hole = false};
  return {.length = std::min(length, static_cast<uint64_t>(hole - at)),
          .is_hole = false};
}

}  // namespace pellucid
