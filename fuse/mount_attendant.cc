#include "fuse/mount_attendant.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <string_view>

#include "engine/errors.h"
#include "engine/io_error.h"
#include "fuse/unmount.h"

namespace pellucid::fuse {
namespace {

enum class Task : int {
  kIdentify,
  kSetSize,
  kSetTimes,
  kWriteBackPages,
  kSync,
  kIsReachable,
  kUnmountIfIdle,
  kDetach,
  kLog,  // Has no reply.
};

// Long enough for a path, cut if not.
using Text = char[2048];

void Copy(std::string_view from, Text& to) {
  to[from.copy(to, sizeof to - 1)] = '\0';
}

// The socket of the child; everything above it is closed.
constexpr int kChildFd = STDERR_FILENO + 1;

void LeaveEverythingOfTheParent(int fd) {
  setsid();
  (void)!chdir("/");
  const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) {
    if (null_fd >= 0) dup2(null_fd, stream);
  }
  if (fd != kChildFd) dup3(fd, kChildFd, O_CLOEXEC);
  closefrom(kChildFd + 1);
}

}  // namespace

struct MountAttendant::Request {
  Task task = Task::kLog;
  uint64_t size = 0;
  timespec accessed = {};
  timespec modified = {};
  Text text = {};
};

struct MountAttendant::Reply {
  int result = 0;            // Of OwnMount's method, as a number.
  int error = 0;             // errno; of the exception if has_thrown.
  bool has_thrown = false;   // `text` is why.
  bool is_io_error = false;  // What was thrown was an IoError.
  Text text = {};
};

MountAttendant::MountAttendant(const Mountpoint& mountpoint) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    ThrowIoError(errno, "socketpair");
  }
  // The child never takes a signal: what ends its parent must not end it first.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_ = fork();
  const int error = errno;
  if (pid_ == 0) Run(ends[1], mountpoint);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  close(ends[1]);
  fd_ = ends[0];
  if (pid_ < 0) {
    close(fd_);
    ThrowIoError(error, "fork");
  }
}

MountAttendant::~MountAttendant() {
  close(fd_);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void MountAttendant::Identify() { Ask({.task = Task::kIdentify}); }

bool MountAttendant::SetSize(uint64_t size) {
  return Ask({.task = Task::kSetSize, .size = size}).result != 0;
}

bool MountAttendant::SetTimes(timespec accessed, timespec modified) {
  return Ask({.task = Task::kSetTimes,
              .accessed = accessed,
              .modified = modified})
             .result != 0;
}

bool MountAttendant::WriteBackPages() {
  return Ask({.task = Task::kWriteBackPages}).result != 0;
}

bool MountAttendant::Sync() { return Ask({.task = Task::kSync}).result != 0; }

bool MountAttendant::IsReachable() {
  return Ask({.task = Task::kIsReachable}).result != 0;
}

OwnMount::UnmountResult MountAttendant::UnmountIfIdle() {
  return static_cast<OwnMount::UnmountResult>(
      Ask({.task = Task::kUnmountIfIdle}).result);
}

void MountAttendant::Detach() { Ask({.task = Task::kDetach}); }

void MountAttendant::Log(const std::string& line) noexcept {
  Request request = {.task = Task::kLog};
  Copy(line, request.text);
  (void)!send(fd_, &request, sizeof request, MSG_NOSIGNAL | MSG_DONTWAIT);
}

MountAttendant::Reply MountAttendant::Ask(const Request& request) {
  const std::scoped_lock lock(mutex_);
  Reply reply = {};
  ssize_t length = 0;
  do {
    length = send(fd_, &request, sizeof request, MSG_NOSIGNAL);
  } while (length < 0 && errno == EINTR);
  while (length > 0) {
    length = recv(fd_, &reply, sizeof reply, 0);
    if (length >= 0 || errno != EINTR) break;
    length = 1;
  }
  if (length != sizeof reply) {
    ThrowIoError(ECHILD, "the process that looks after the mount has ended");
  }
  if (reply.has_thrown && reply.is_io_error) {
    throw IoError(reply.error, reply.text);
  }
  if (reply.has_thrown) throw Error(ExitCode::kFailure, reply.text);
  errno = reply.error;
  return reply;
}

MountAttendant::Reply MountAttendant::Do(const Request& request,
                                         OwnMount& mount,
                                         const Mountpoint& mountpoint) {
  Reply reply = {};
  try {
    switch (request.task) {
      case Task::kIdentify:
        mount.Identify();
        break;
      case Task::kSetSize:
        reply.result = mount.SetSize(request.size) ? 1 : 0;
        break;
      case Task::kSetTimes:
        reply.result =
            mount.SetTimes(request.accessed, request.modified) ? 1 : 0;
        break;
      case Task::kWriteBackPages:
        reply.result = mount.WriteBackPages() ? 1 : 0;
        break;
      case Task::kSync:
        reply.result = mount.Sync() ? 1 : 0;
        break;
      case Task::kIsReachable:
        reply.result = mount.IsReachable() ? 1 : 0;
        break;
      case Task::kUnmountIfIdle:
        reply.result = static_cast<int>(mount.UnmountIfIdle());
        break;
      case Task::kDetach:
        DetachMount(mountpoint.path);
        break;
      case Task::kLog:
        break;
    }
    reply.error = errno;
  } catch (const IoError& error) {
    reply.has_thrown = true;
    reply.is_io_error = true;
    reply.error = error.host_errno();
    Copy(error.what(), reply.text);
  } catch (const std::exception& error) {
    reply.has_thrown = true;
    Copy(error.what(), reply.text);
  }
  return reply;
}

void MountAttendant::Run(int fd, const Mountpoint& mountpoint) {
  LeaveEverythingOfTheParent(fd);
  OwnMount mount(mountpoint);
  while (true) {
    Request request = {};
    const ssize_t length = recv(kChildFd, &request, sizeof request, 0);
    if (length < 0 && errno == EINTR) continue;
    // The parent is gone, whatever became of it.
    if (length != sizeof request) break;
    if (request.task == Task::kLog) {
      syslog(LOG_DAEMON | LOG_ERR, "%s", request.text);
      continue;
    }
    const Reply reply = Do(request, mount, mountpoint);
    (void)!send(kChildFd, &reply, sizeof reply, MSG_NOSIGNAL);
  }
  _exit(0);
}

}  // namespace pellucid::fuse
