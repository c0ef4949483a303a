#include "engine/file_device.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "engine/host_file.h"
#include "engine/image_locks.h"

namespace pellucid {
namespace {

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
  device->stat_ = StatHostFile(device->fd_, file);
  device->size_ = HostFileSize(device->fd_, file);
  if (sharing == Sharing::kForced) {
    LockForForcedReading(device->fd_);
  } else {
    LockForReading(device->fd_, file);
  }
  return device;
}

void FileDevice::Read(uint64_t offset, std::span<std::byte> out) {
  ReadFromHostFile(fd_, file_, offset, out);
}

Extent FileDevice::ExtentAt(uint64_t offset, uint64_t max_length) {
  return HostFileExtentAt(fd_, size_, offset, max_length);
}

}  // namespace pellucid
