#ifndef PELLUCID_FUSE_IDLE_UNMOUNT_H_
#define PELLUCID_FUSE_IDLE_UNMOUNT_H_

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <thread>

#include "fuse/activity.h"
#include "fuse/error_log.h"
#include "fuse/mount_attendant.h"

namespace pellucid::fuse {

// Unmounts when nobody has used the mount for some time, in a thread of its
// own. What was written is made durable first; if that fails, or the kernel
// finds the mount in use (by a working directory, say), it stays, and the time
// begins anew. Not synchronised, but for what the thread does.
class IdleUnmount {
 public:
  // Starts the thread, which waits for Start(). All references are borrowed.
  IdleUnmount(MountAttendant& mount, bool is_writable, const Activity& activity,
              std::chrono::milliseconds timeout, ErrorLog& log);
  IdleUnmount(const IdleUnmount&) = delete;
  IdleUnmount& operator=(const IdleUnmount&) = delete;
  // Waits for the system call that is being made: the mount must still be
  // served or be gone.
  ~IdleUnmount() { Stop(); }

  // The mount is there, and its time runs. If it can be written, `mount` has
  // been identified. To be called once, by any thread.
  void Start();
  // Ends the thread; may be repeated.
  void Stop();

 private:
  void Run(const std::stop_token& stop);
  // False if the thread is to end first.
  bool WaitUntil(Activity::Clock::time_point time, const std::stop_token& stop);
  // False if the mount stays.
  bool Unmount();

  MountAttendant& mount_;
  const bool is_writable_;
  const Activity& activity_;
  const std::chrono::milliseconds timeout_;
  ErrorLog& log_;
  std::mutex mutex_;  // Never held during a system call on the mount.
  std::condition_variable_any changed_;
  bool has_started_ = false;  // Guarded by mutex_.
  std::jthread thread_;       // Last: it uses all of the above.
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_IDLE_UNMOUNT_H_
