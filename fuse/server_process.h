#ifndef PELLUCID_FUSE_SERVER_PROCESS_H_
#define PELLUCID_FUSE_SERVER_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <optional>

#include "fuse/mount_table.h"

namespace pellucid::fuse {

// The process that serves a mount, or did so and has ended. Not synchronised.
class ServerProcess {
 public:
  // Asks `mount` who serves it. Nothing if it does not answer within a few
  // seconds, or is another user's who cannot be impersonated. Throws IoError if
  // the host has no process or descriptor left.
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

 private:
  ServerProcess(pid_t pid, int pid_fd) : pid_(pid), pid_fd_(pid_fd) {}

  pid_t pid_;
  // So that the number cannot come to mean another process; -1 if it has ended.
  int pid_fd_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_SERVER_PROCESS_H_
