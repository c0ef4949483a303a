#include "fuse/owner_child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

#include "engine/io_error.h"

namespace pellucid::fuse {
namespace {

constexpr std::chrono::seconds kEndPatience{1};

bool BecomeOwner(uid_t owner, gid_t owner_group) {
  if (getegid() != owner_group &&
      setresgid(owner_group, owner_group, owner_group) != 0) {
    return false;
  }
  return geteuid() == owner || setresuid(owner, owner, owner) == 0;
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

}  // namespace

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

std::string AskAsOwner(const MountTableEntry& mount,
                       std::chrono::milliseconds patience,
                       void (*ask)(const char* mountpoint, int fd)) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) ThrowIoError(errno, "pipe");
  const std::string path = mount.mountpoint.string();
  const uid_t owner = mount.owner.value_or(geteuid());
  const gid_t owner_group = mount.owner_group.value_or(getegid());
  const pid_t child = fork();
  if (child == 0) {
    if (BecomeOwner(owner, owner_group)) ask(path.c_str(), ends[1]);
    _exit(0);
  }
  const int fork_errno = errno;
  close(ends[1]);
  std::array<char, 32> value;
  ssize_t length = 0;
  if (child > 0) {
    if (WaitUntilReadable(ends[0], patience)) {
      length = read(ends[0], value.data(), value.size());
    }
    kill(child, SIGKILL);
    AwaitEnd(child);
  }
  close(ends[0]);
  if (child < 0) ThrowIoError(fork_errno, "fork");
  return {value.data(), static_cast<size_t>(std::max<ssize_t>(length, 0))};
}

}  // namespace pellucid::fuse
