#include "fuse/server_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

// glibc 2.36 declares these without C linkage.
extern "C" {
#include <sys/pidfd.h>
}

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "engine/io_error.h"

namespace pellucid::fuse {
namespace {

constexpr std::chrono::seconds kAnswerPatience{3};
constexpr std::chrono::seconds kEndPatience{1};

// In place of a number, if the kernel says that nobody serves any more.
constexpr std::string_view kHasEnded = "ended";

bool WaitUntilReadable(int fd, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  pollfd waiting = {fd, POLLIN, 0};
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    const int ready =
        poll(&waiting, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) ThrowIoError(errno, "poll");
  }
}

// Runs in a child: writes the attribute to `fd`. FUSE lets only the owner of a
// mount look at it, not even root.
[[noreturn]] void TellServerPid(const char* mountpoint, uid_t owner,
                                gid_t owner_group, int fd) {
  if (getegid() != owner_group &&
      setresgid(owner_group, owner_group, owner_group) != 0) {
    _exit(1);
  }
  if (geteuid() != owner && setresuid(owner, owner, owner) != 0) _exit(1);
  char value[32];
  ssize_t length =
      lgetxattr(mountpoint, kServerPidAttribute, value, sizeof value);
  if (length < 0 && errno == ENOTCONN) {
    length = kHasEnded.size();
    kHasEnded.copy(value, kHasEnded.size());
  }
  if (length <= 0 || write(fd, value, static_cast<size_t>(length)) != length) {
    _exit(1);
  }
  _exit(0);
}

// Waits for a child that was killed: until it has gone the mount is in use. One
// whose request the server has taken and does not answer outlives even that,
// and is given up.
void AwaitEnd(pid_t child) {
  const auto deadline = std::chrono::steady_clock::now() + kEndPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    const pid_t ended = waitpid(child, nullptr, WNOHANG);
    if (ended > 0 || (ended < 0 && errno != EINTR)) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// The value of the attribute, kHasEnded, or "". A child asks, since a server
// that is stuck would keep whoever asks waiting.
std::string AskForServerPid(const MountTableEntry& mount) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) ThrowIoError(errno, "pipe");
  const std::string path = mount.mountpoint.string();
  const uid_t owner = mount.owner.value_or(geteuid());
  const gid_t owner_group = mount.owner_group.value_or(getegid());
  const pid_t child = fork();
  if (child == 0) TellServerPid(path.c_str(), owner, owner_group, ends[1]);
  const int fork_errno = errno;
  close(ends[1]);
  std::array<char, 32> value;
  ssize_t length = 0;
  if (child > 0) {
    if (WaitUntilReadable(ends[0], kAnswerPatience)) {
      length = read(ends[0], value.data(), value.size());
    }
    kill(child, SIGKILL);
    AwaitEnd(child);
  }
  close(ends[0]);
  if (child < 0) ThrowIoError(fork_errno, "fork");
  return {value.data(), static_cast<size_t>(std::max<ssize_t>(length, 0))};
}

}  // namespace

std::optional<ServerProcess> ServerProcess::Find(const MountTableEntry& mount) {
  const std::string value = AskForServerPid(mount);
  if (value == kHasEnded) return ServerProcess(0, -1);
  pid_t pid = 0;
  const char* const end = value.data() + value.size();
  const auto [parsed_to, error] = std::from_chars(value.data(), end, pid);
  if (error != std::errc() || parsed_to != end || pid <= 0) return std::nullopt;
  const auto fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE) ThrowIoError(errno, "pidfd_open");
    return std::nullopt;
  }
  return ServerProcess(pid, fd);
}

ServerProcess::ServerProcess(ServerProcess&& other) noexcept
    : pid_(other.pid_), pid_fd_(std::exchange(other.pid_fd_, -1)) {}

ServerProcess::~ServerProcess() {
  if (pid_fd_ >= 0) close(pid_fd_);
}

bool ServerProcess::WaitForEnd(std::chrono::milliseconds patience) const {
  return pid_fd_ < 0 || WaitUntilReadable(pid_fd_, patience);
}

}  // namespace pellucid::fuse
