#ifndef PELLUCID_FUSE_ERROR_LOG_H_
#define PELLUCID_FUSE_ERROR_LOG_H_

#include <array>
#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "fuse/mount_attendant.h"

namespace pellucid::fuse {

enum class LogTarget {
  kStandardError,
  kSystemLog,  // syslog(3), facility "daemon", by way of the attendant.
};

// Tells why requests fail, since their caller sees only an errno. A message
// that was among the last few is not repeated, and a flood is cut off. Safe to
// call from many threads; never throws, loses a message instead.
class ErrorLog {
 public:
  // `attendant` is borrowed.
  ErrorLog(LogTarget target, MountAttendant& attendant)
      : target_(target), attendant_(attendant) {}
  ErrorLog(const ErrorLog&) = delete;
  ErrorLog& operator=(const ErrorLog&) = delete;

  // `request` says what failed ("read of 4096 bytes at offset 0"), `reason`
  // why. Messages are told apart by their reasons.
  void Report(std::string_view request, std::string_view reason) noexcept;

 private:
  // True if the message is to be written; `mutex_` must be held.
  bool Admit(std::string_view reason);
  void Write(const std::string& line);

  const LogTarget target_;
  MountAttendant& attendant_;

  std::mutex mutex_;
  // Guarded by mutex_.
  std::array<std::string, 16> recent_reasons_;
  size_t next_recent_ = 0;
  std::chrono::steady_clock::time_point period_start_;
  unsigned written_in_period_ = 0;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_ERROR_LOG_H_
