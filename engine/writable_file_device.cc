#include "engine/writable_file_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/host_file.h"
#include "engine/host_file_rules.h"
#include "engine/image_locks.h"

namespace pellucid {
namespace {

constexpr mode_t kForOwnerAlone = S_IRUSR | S_IWUSR;
constexpr size_t kZerosAtOnce = 64 << 10;

// Returns 0, or an errno if the host may have lost what it was to store.
int BeginToStore(int fd, uint64_t offset, uint64_t length) {
  if (sync_file_range(fd, static_cast<off64_t>(offset),
                      static_cast<off64_t>(length),
                      SYNC_FILE_RANGE_WRITE) == 0) {
    return 0;
  }
  switch (errno) {
    case EINVAL:
    case ENOSYS:
    case EOPNOTSUPP:
    case ESPIPE:  // Not for this file.
    case EAGAIN:
    case ENOMEM:  // Not now: what was not stored is kept.
      return 0;
    default:
      return errno;
  }
}

}  // namespace

WritableFileDevice::WritableFileDevice(std::filesystem::path file, int fd)
    : file_(std::move(file)),
      fd_(fd),
      drop_behind_(fd),
      write_behind_([fd](uint64_t offset, uint64_t length) {
        return BeginToStore(fd, offset, length);
      }) {}

WritableFileDevice::~WritableFileDevice() {
  write_behind_.Stop();
  close(fd_);
}

std::unique_ptr<WritableFileDevice> WritableFileDevice::Open(
    const std::filesystem::path& file, const HostFileCheck& check) {
  return Adopt(
      OpenHostFile(file, O_RDWR | O_NOATIME, "open it for writing", check),
      file);
}

std::unique_ptr<WritableFileDevice> WritableFileDevice::Adopt(
    int fd, const std::filesystem::path& file) {
  std::unique_ptr<WritableFileDevice> device(new WritableFileDevice(file, fd));
  LockForWriting(fd, file);
  ReportOpenedHostFile({.file = file, .fd = fd, .use = HostFileUse::kOutput});
  // Behind the lock: nobody else changes it from here on.
  device->stat_ = StatHostFile(fd, file);
  device->size_ = HostFileSize(fd, file);
  return device;
}

std::unique_ptr<WritableFileDevice> WritableFileDevice::Create(
    const std::filesystem::path& file) {
  const int fd =
      open(file.c_str(), O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, kForOwnerAlone);
  if (fd >= 0) return Adopt(fd, file);
  if (errno != EEXIST) ThrowHostError(file, errno, "create it");
  throw UsageError(
      fmt::format("{}: exists already; --force overwrites it", file.native()));
}

bool WritableFileDevice::keeps_access_time() const {
  return KeepsAccessTime(fd_);
}

void WritableFileDevice::Read(uint64_t offset, std::span<std::byte> out) {
  ReadFromHostFile(fd_, file_, offset, out);
  drop_behind_.NoteRead(offset, out.size());
}

Extent WritableFileDevice::ExtentAt(uint64_t offset, uint64_t max_length) {
  return HostFileExtentAt(fd_, size_, offset, max_length);
}

void WritableFileDevice::Write(uint64_t offset, std::span<const std::byte> in) {
  while (!in.empty()) {
    const ssize_t n =
        pwrite(fd_, in.data(), in.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      ThrowHostError(file_, errno, fmt::format("write at offset {}", offset));
    }
    const uint64_t begin = offset;
    offset += static_cast<uint64_t>(n);
    in = in.subspan(static_cast<size_t>(n));
    uint64_t size = size_;
    while (size < offset && !size_.compare_exchange_weak(size, offset)) {
    }
    write_behind_.NoteWrite(begin, offset - begin);
  }
}

void WritableFileDevice::WriteZeroes(uint64_t offset, uint64_t length,
                                     ZeroMode mode) {
  if (length == 0) return;
  const int flags = FALLOC_FL_KEEP_SIZE |
                    (mode == ZeroMode::kFreeSpace ? FALLOC_FL_PUNCH_HOLE
                                                  : FALLOC_FL_ZERO_RANGE);
  while (fallocate(fd_, flags, static_cast<off_t>(offset),
                   static_cast<off_t>(length)) != 0) {
    if (errno == EINTR) continue;
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
      ThrowHostError(file_, errno,
                     fmt::format("zero {} bytes at offset {}", length, offset));
    }
    // The host's file system has no such call.
    const std::vector<std::byte> zeros(
        std::min<uint64_t>(length, kZerosAtOnce));
    while (length != 0) {
      const uint64_t piece = std::min<uint64_t>(length, zeros.size());
      Write(offset, std::span(zeros).first(piece));
      offset += piece;
      length -= piece;
    }
    return;
  }
}

void WritableFileDevice::FreeSpace(uint64_t offset, uint64_t length) noexcept {
  if (length == 0) return;
  while (fallocate(fd_, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                   static_cast<off_t>(offset),
                   static_cast<off_t>(length)) != 0 &&
         errno == EINTR) {
  }
}

void WritableFileDevice::Flush() {
  const std::lock_guard lock(flush_mutex_);
  if (flush_errno_ == 0) {
    flush_errno_ = fdatasync(fd_) != 0 ? errno : write_behind_.Error();
    if (flush_errno_ == 0) return;
    ThrowHostError(file_, flush_errno_, "flush it");
  }
  ThrowHostError(file_, flush_errno_,
                 "flush it since a flush has failed, after which the host may "
                 "have lost what was written before; open it again and check "
                 "it");
}

void WritableFileDevice::Resize(uint64_t size) {
  while (ftruncate(fd_, static_cast<off_t>(size)) != 0) {
    if (errno == EINTR) continue;
    ThrowHostError(file_, errno, fmt::format("resize it to {} bytes", size));
  }
  size_ = size;
}

}  // namespace pellucid
