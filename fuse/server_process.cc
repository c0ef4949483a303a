#include "fuse/server_process.h"

#include <fmt/core.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

// glibc 2.36 declares these without C linkage.
extern "C" {
#include <sys/pidfd.h>
}

#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "engine/errors.h"
#include "engine/io_error.h"
#include "fuse/owner_child.h"

namespace pellucid::fuse {
namespace {

constexpr std::chrono::seconds kAnswerPatience{3};

// In place of a number, if the kernel says that nobody serves any more.
constexpr std::string_view kHasEnded = "ended";

// Runs in a child: writes the attribute to `fd`, or kHasEnded.
void TellServerPid(const char* mountpoint, int fd) {
  char value[32];
  ssize_t length =
      lgetxattr(mountpoint, kServerPidAttribute, value, sizeof value);
  if (length < 0 && errno == ENOTCONN) {
    length = kHasEnded.size();
    kHasEnded.copy(value, kHasEnded.size());
  }
  if (length > 0) (void)!write(fd, value, static_cast<size_t>(length));
}

}  // namespace

std::optional<ServerProcess> ServerProcess::Find(const MountTableEntry& mount) {
  const std::string value = AskAsOwner(mount, kAnswerPatience, TellServerPid);
  if (value == kHasEnded) return ServerProcess(0, -1, "");
  pid_t pid = 0;
  const char* const end = value.data() + value.size();
  const auto [parsed_to, error] = std::from_chars(value.data(), end, pid);
  if (error != std::errc() || pid <= 0) return std::nullopt;
  std::string_view end_report(parsed_to, static_cast<size_t>(end - parsed_to));
  if (end_report.starts_with(' ')) end_report.remove_prefix(1);
  const auto fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE) ThrowIoError(errno, "pidfd_open");
    return std::nullopt;
  }
  return ServerProcess(pid, fd, end_report);
}

ServerProcess::ServerProcess(ServerProcess&& other) noexcept
    : pid_(other.pid_),
      pid_fd_(std::exchange(other.pid_fd_, -1)),
      end_report_(std::move(other.end_report_)) {}

ServerProcess::~ServerProcess() {
  if (pid_fd_ >= 0) close(pid_fd_);
}

bool ServerProcess::WaitForEnd(std::chrono::milliseconds patience) const {
  return pid_fd_ < 0 || WaitUntilReadable(pid_fd_, patience);
}

void ServerProcess::CheckEnd(const std::filesystem::path& mountpoint) const {
  if (!end_report_.is_connected()) return;
  const std::optional<int> error = end_report_.Read();
  if (!error) {
    throw Error(ExitCode::kFailure,
                fmt::format("{}: unmounted, but the serving process {} was "
                            "ended before it had made durable what was written "
                            "last",
                            mountpoint.string(), pid_));
  }
  if (*error == 0) return;
  throw IoError(
      *error,
      fmt::format("{}: unmounted, but what was written to it meanwhile is "
                  "lost: {}",
                  mountpoint.string(),
                  std::generic_category().message(*error)));
}

}  // namespace pellucid::fuse
