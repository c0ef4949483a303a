#include "fuse/idle_unmount.h"

#include <cerrno>
#include <exception>
#include <system_error>

namespace pellucid::fuse {
namespace {

constexpr char kWhat[] = "unmounting what nobody has used for long";

}  // namespace

IdleUnmount::IdleUnmount(MountAttendant& mount, bool is_writable,
                         const Activity& activity,
                         std::chrono::milliseconds timeout, ErrorLog& log)
    : mount_(mount),
      is_writable_(is_writable),
      activity_(activity),
      timeout_(timeout),
      log_(log),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

void IdleUnmount::Start() {
  {
    const std::scoped_lock lock(mutex_);
    has_started_ = true;
  }
  changed_.notify_all();
}

void IdleUnmount::Stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void IdleUnmount::Run(const std::stop_token& stop) {
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [this] { return has_started_; })) return;
  }
  try {
    // Otherwise InodeKeeper has done so.
    if (!is_writable_) mount_.Identify();
  } catch (const std::exception& error) {
    log_.Report(kWhat, error.what());
    return;
  }
  auto end = Activity::Clock::now() + timeout_;
  while (WaitUntil(end, stop)) {
    const auto now = Activity::Clock::now();
    end = (activity_.has_open_files() ? now : activity_.last()) + timeout_;
    if (end > now) continue;
    if (Unmount()) return;
    end = Activity::Clock::now() + timeout_;
  }
}

bool IdleUnmount::WaitUntil(Activity::Clock::time_point time,
                            const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

bool IdleUnmount::Unmount() {
  try {
    if (!mount_.IsReachable()) return false;
    if (is_writable_ && !mount_.Sync()) {
      log_.Report(kWhat,
                  "stays mounted, for what was written to it could not "
                  "be made durable: " +
                      std::generic_category().message(errno));
      return false;
    }
    return mount_.UnmountIfIdle() == OwnMount::UnmountResult::kDone;
  } catch (const std::exception& error) {
    log_.Report(kWhat, error.what());
    return false;
  }
}

}  // namespace pellucid::fuse
