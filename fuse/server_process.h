#ifndef PELLUCID_FUSE_SERVER_PROCESS_H_
#define PELLUCID_FUSE_SERVER_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string_view>

#include "fuse/end_report.h"
#include "fuse/mount_table.h"

namespace pellucid::fuse {

// The process that serves a mount, or did so and has ended. Not synchronised.
class ServerProcess {
 public:
  // Asks `mount` who serves it, and to be told how that ends. Nothing if it
  // does not answer within a few seconds, or is another user's who cannot be
  // impersonated. Throws IoError if the host has no process or descriptor left.
  static std::optional<ServerProcess> Find(const MountTableEntry& mount);

  ServerProcess(ServerProcess&& other) noexcept;
  ServerProcess& operator=(ServerProcess&&) = delete;
  ~ServerProcess();

  // 0 if it had ended before.
  pid_t pid() const { return pid_; }

  // Whether it had ended before it was asked for.
  bool has_ended() const { return pid_ == 0; }

  // False if the process still exists after `patience`.
  bool WaitForEnd(std::chrono::milliseconds patience) const;

  // How a server has ended, after WaitForEnd(): throws IoError if what was
  // written last did not become durable, and Error if it ended without saying
  // so. Nothing happens if it is not known, or nothing could be written.
  void CheckEnd(const std::filesystem::path& mountpoint) const;

 private:
  ServerProcess(pid_t pid, int pid_fd, std::string_view end_report)
      : pid_(pid), pid_fd_(pid_fd), end_report_(end_report) {}

  pid_t pid_;
  // So that the number cannot come to mean another process; -1 if it has ended.
  int pid_fd_;
  EndReportReader end_report_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_SERVER_PROCESS_H_
