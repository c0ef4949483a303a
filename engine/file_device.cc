#include "engine/file_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "engine/errors.h"
#include "engine/host_file.h"
#include "engine/host_file_rules.h"
#include "engine/image_locks.h"

namespace pellucid {
FileDevice::FileDevice(std::filesystem::path file, int fd)
    : file_(std::move(file)), fd_(fd), drop_behind_(fd) {}

FileDevice::~FileDevice() { close(fd_); }

std::unique_ptr<FileDevice> FileDevice::Open(const std::filesystem::path& file,
                                             Sharing sharing,
                                             const HostFileCheck& check) {
  std::unique_ptr<FileDevice> device(new FileDevice(
      file,
      OpenHostFile(file, O_RDONLY | O_NOATIME, "open it for reading", check)));
  if (sharing == Sharing::kForced) {
    LockForForcedReading(device->fd_);
  } else {
    LockForReading(device->fd_, file);
  }
  if (MustKeepEvidence() && !device->keeps_access_time()) {
    throw UsageError(fmt::format(
        "{}: reading it could change its access time, which --forensic must "
        "not; be root or its owner, or mount its file system with -o noatime "
        "or ro",
        file.native()));
  }
  ReportOpenedHostFile(
      {.file = file, .fd = device->fd_, .use = HostFileUse::kEvidence});
  // Behind the lock: nobody changes it from here on.
  device->stat_ = StatHostFile(device->fd_, file);
  device->size_ = HostFileSize(device->fd_, file);
  return device;
}

bool FileDevice::keeps_access_time() const { return KeepsAccessTime(fd_); }

void FileDevice::Read(uint64_t offset, std::span<std::byte> out) {
  ReadFromHostFile(fd_, file_, offset, out);
  drop_behind_.NoteRead(offset, out.size());
}

Extent FileDevice::ExtentAt(uint64_t offset, uint64_t max_length) {
  return HostFileExtentAt(fd_, size_, offset, max_length);
}

}  // namespace pellucid
