#include "fuse/unmount.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "engine/io_error.h"
#include "fuse/mount_table.h"
#include "fuse/mountpoint.h"
#include "fuse/owner_child.h"
#include "fuse/server_process.h"

namespace pellucid::fuse {
namespace {

constexpr std::chrono::seconds kServerPatience{60};
// The kernel may hold gigabytes for a slow disk. A server that is stuck has
// answered another question just before.
constexpr std::chrono::minutes kFlushPatience{5};
constexpr std::chrono::milliseconds kBusyPatience{500};
constexpr std::chrono::milliseconds kBusyPause{20};
constexpr char kUnmountProgram[] = "fusermount3";

[[noreturn]] void ThrowBusy(const std::filesystem::path& mountpoint) {
  throw Error(
      ExitCode::kFailure,
      fmt::format("{0}: in use; close what is open there (`fuser -vm {0}` "
                  "lists it), or unmount with --lazy",
                  mountpoint.string()));
}

MountTableEntry FindOurMount(const std::filesystem::path& path) {
  if (path.empty()) throw UsageError("the name of the mountpoint is empty");
  std::filesystem::path resolved;
  try {
    resolved = ResolveMountpoint(path);
  } catch (const std::filesystem::filesystem_error& error) {
    throw UsageError(
        fmt::format("{}: {}", path.string(), error.code().message()));
  }
  const std::optional<MountTableEntry> mount = FindMount(resolved);
  if (!mount) {
    throw UsageError(fmt::format("{}: nothing is mounted here", path.string()));
  }
  if (mount->type != kFilesystemType) {
    throw UsageError(
        fmt::format("{}: not a mount of pellucid but of type {}; see umount(8)",
                    path.string(), mount->type));
  }
  return *mount;
}

// Runs in a child: 0, or the errno that kept the file from being synced.
int SyncFileOf(const char* mountpoint) {
  struct statvfs file_system = {};
  if (statvfs(mountpoint, &file_system) != 0) return errno;
  if ((file_system.f_flag & ST_RDONLY) != 0) return 0;
  const int root = open(mountpoint, O_PATH | O_CLOEXEC | O_NOFOLLOW);
  struct stat status = {};
  if (root < 0 || fstat(root, &status) != 0) return errno;
  const int file = S_ISDIR(status.st_mode)
                       ? openat(root, kDiskName, O_RDONLY | O_CLOEXEC)
                       : open(mountpoint, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0 || fsync(file) != 0) return errno;
  // Not left to the end of the process: the mount must be idle then.
  close(file);
  close(root);
  return 0;
}

void TellSyncErrno(const char* mountpoint, int fd) {
  const int error = SyncFileOf(mountpoint);
  (void)!write(fd, &error, sizeof error);
}

// Makes durable what was written while there is still somebody to tell that it
// failed: once unmounted, the server has only its log, and ends.
void SyncBeforeUnmount(const MountTableEntry& mount) {
  const std::string answer = AskAsOwner(mount, kFlushPatience, TellSyncErrno);
  int error = ETIMEDOUT;
  if (answer.size() == sizeof error) {
    std::memcpy(&error, answer.data(), sizeof error);
  }
  if (error == 0) return;
  throw IoError(
      error,
      fmt::format("{}: still mounted, for what was written to it could not be "
                  "made durable: {}; cure that (make room for the image, say) "
                  "and unmount again, or give up what cannot be written with "
                  "--lazy",
                  mount.mountpoint.string(),
                  std::generic_category().message(error)));
}

// Runs `arguments[0]` and returns its exit code; what it writes on standard
// error ends up in `output`.
int RunProgram(const std::vector<std::string>& arguments, std::string& output) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) ThrowIoError(errno, "pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) {
    pointers.push_back(const_cast<char*>(argument.c_str()));
  }
  pointers.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, pointers[0], &actions, nullptr,
                                 pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  char piece[512];
  ssize_t length = 0;
  while (error == 0 && (length = read(ends[0], piece, sizeof piece)) != 0) {
    if (length < 0 && errno != EINTR) break;
    if (length > 0) output.append(piece, static_cast<size_t>(length));
  }
  close(ends[0]);
  if (error != 0) {
    throw IoError(
        error, fmt::format("{}: {}; it is in the package fuse3", arguments[0],
                           std::generic_category().message(error)));
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Each is false if the mount is in use.
bool UnmountAsUser(const std::filesystem::path& mountpoint, UnmountMode mode) {
  std::vector<std::string> arguments = {kUnmountProgram, "-u"};
  if (mode == UnmountMode::kLazy) arguments.push_back("-z");
  arguments.insert(arguments.end(), {"--", mountpoint.string()});
  std::string output;
  if (RunProgram(arguments, output) == 0) return true;
  if (output.find("busy") != std::string::npos) return false;
  while (!output.empty() && output.back() == '\n') output.pop_back();
  throw Error(ExitCode::kFailure, fmt::format("{}: cannot unmount: {}",
                                              mountpoint.string(), output));
}

bool UnmountInOneWay(const std::filesystem::path& mountpoint,
                     UnmountMode mode) {
  const int flags =
      UMOUNT_NOFOLLOW | (mode == UnmountMode::kLazy ? MNT_DETACH : 0);
  if (umount2(mountpoint.c_str(), flags) == 0) return true;
  // The kernel reserves it for root.
  if (errno == EPERM) return UnmountAsUser(mountpoint, mode);
  if (errno == EBUSY) return false;
  const int error = errno;
  ThrowIoError(error, fmt::format("{}: cannot unmount", mountpoint.string()));
}

// After the last close the server looks at its own mount for a moment, to
// correct times; so one refusal says little.
bool UnmountSoon(const std::filesystem::path& mountpoint, UnmountMode mode) {
  const auto give_up = std::chrono::steady_clock::now() + kBusyPatience;
  while (!UnmountInOneWay(mountpoint, mode)) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(kBusyPause);
  }
  return true;
}

}  // namespace

bool UnmountUnlessBusy(const std::filesystem::path& mountpoint) {
  return UnmountInOneWay(mountpoint, UnmountMode::kWhenIdle);
}

void DetachMount(const std::filesystem::path& mountpoint) {
  UnmountInOneWay(mountpoint, UnmountMode::kLazy);
}

void Unmount(const std::filesystem::path& mountpoint, UnmountMode mode) {
  const MountTableEntry mount = FindOurMount(mountpoint);
  const std::optional<ServerProcess> server = mode == UnmountMode::kWhenIdle
                                                  ? ServerProcess::Find(mount)
                                                  : std::nullopt;
  if (server && !server->has_ended()) SyncBeforeUnmount(mount);
  if (!UnmountSoon(mount.mountpoint, mode)) ThrowBusy(mount.mountpoint);
  if (mode == UnmountMode::kLazy) return;
  if (!server) {
    throw Error(ExitCode::kFailure,
                fmt::format("{}: unmounted, but cannot tell whether the "
                            "serving process has ended; it may hold the image",
                            mountpoint.string()));
  }
  if (!server->WaitForEnd(kServerPatience)) {
    throw Error(ExitCode::kFailure,
                fmt::format("{}: unmounted, but the serving process {} has not "
                            "ended yet and may hold the image",
                            mountpoint.string(), server->pid()));
  }
  // Between the fsync and the unmount somebody may have written.
  server->CheckEnd(mountpoint);
}

}  // namespace pellucid::fuse
