#include "fuse/own_mount.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "engine/io_error.h"
#include "fuse/unmount.h"

namespace pellucid::fuse {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    const int error = errno;  // Of the call that was made with it.
    if (fd_ >= 0) close(fd_);
    errno = error;
  }
  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  const int fd_;
};

// A name for what `fd` stands for, which may be O_PATH.
std::string NameOf(const Descriptor& fd) {
  return fmt::format("/proc/self/fd/{}", fd.get());
}

}  // namespace

OwnMount::OwnMount(Mountpoint mountpoint)
    : mountpoint_(std::move(mountpoint)), file_(PlaintextFileOf(mountpoint_)) {}

void OwnMount::Identify() {
  const Descriptor fd(open(file_.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
  struct stat status = {};
  if (!fd.is_open() || fstat(fd.get(), &status) != 0) {
    const int error = errno;
    ThrowIoError(error, fmt::format("{}: cannot look at what was just mounted",
                                    file_.string()));
  }
  device_ = status.st_dev;
}

int OwnMount::OpenFile(int flags) const {
  // O_PATH sends no request, so this may meet a file system that is stuck.
  const Descriptor path(open(file_.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
  struct stat status = {};
  if (!path.is_open() || fstat(path.get(), &status) != 0 ||
      status.st_dev != device_) {
    return -1;
  }
  if ((flags & O_PATH) != 0) return fcntl(path.get(), F_DUPFD_CLOEXEC, 0);
  return open(NameOf(path).c_str(), flags | O_CLOEXEC);
}

bool OwnMount::SetSize(uint64_t size) {
  const Descriptor fd(OpenFile(O_PATH));
  return fd.is_open() &&
         truncate(NameOf(fd).c_str(), static_cast<off_t>(size)) == 0;
}

bool OwnMount::SetTimes(timespec accessed, timespec modified) {
  const Descriptor fd(OpenFile(O_PATH));
  const std::array<timespec, 2> times = {accessed, modified};
  return fd.is_open() &&
         utimensat(AT_FDCWD, NameOf(fd).c_str(), times.data(), 0) == 0;
}

bool OwnMount::WriteBackPages() {
  const Descriptor fd(OpenFile(O_RDONLY));
  return fd.is_open() &&
         sync_file_range(fd.get(), 0, 0,
                         SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                             SYNC_FILE_RANGE_WAIT_AFTER) == 0;
}

bool OwnMount::IsReachable() const {
  // Closed again at once: it would keep the mount busy.
  return Descriptor(OpenFile(O_PATH)).is_open();
}

bool OwnMount::Sync() {
  const Descriptor fd(OpenFile(O_RDONLY));
  return fd.is_open() && fsync(fd.get()) == 0;
}

OwnMount::UnmountResult OwnMount::UnmountIfIdle() {
  if (!IsReachable()) return UnmountResult::kUnreachable;
  return UnmountUnlessBusy(mountpoint_.path) ? UnmountResult::kDone
                                             : UnmountResult::kBusy;
}

}  // namespace pellucid::fuse
