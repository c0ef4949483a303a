#ifndef PELLUCID_FUSE_INODE_KEEPER_H_
#define PELLUCID_FUSE_INODE_KEEPER_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "fuse/file_times.h"
#include "fuse/mount_attendant.h"

namespace pellucid::fuse {

// Keeps the size and the times right that the kernel has of the file while its
// writeback cache is on. It then believes its own inode instead of the server,
// which goes wrong in three places:
//
// * The inode of a file that is itself the root is made before the kernel has
//   asked anything: it starts empty and in 1970.
// * That inode also never notes when its data changes.
// * A write through the page cache that ends behind the end makes the file
//   longer there, for good, though the data is refused later.
//
// System calls on the mount cure them. A thread of its own makes them, so that
// the threads which answer the requests that follow are never all waiting.
//
// Safe to call from many threads.
class InodeKeeper {
 public:
  // `mount` and `times` are borrowed; `size` is the true one.
  InodeKeeper(MountAttendant& mount, MountpointKind root, uint64_t size,
              const FileTimes& times);
  InodeKeeper(const InodeKeeper&) = delete;
  InodeKeeper& operator=(const InodeKeeper&) = delete;
  // Waits for the system call that is being made: the mount must still be
  // served or be gone.
  ~InodeKeeper() { Stop(); }

  // Whether the cache is on. To be called before anything else is answered.
  void set_kernel_writeback(bool is_on) { kernel_writeback_ = is_on; }

  // Starts the thread. When the kernel's inode is right it calls `on_ready`, or
  // `on_failure` if that cannot be had. Neither may throw.
  void Start(std::function<void()> on_ready,
             std::function<void(std::exception_ptr)> on_failure);
  // Ends the thread; may be repeated.
  void Stop();

  // False until the kernel's inode is right for the first time.
  bool is_prepared() const { return prepared_; }

  // The data has changed.
  void NoteChange() {
    // Looked at first: the line stays shared between writing threads.
    if (root_is_file_ && !times_are_stale_.load(std::memory_order_relaxed)) {
      times_are_stale_ = true;
    }
  }
  // The kernel tried to write behind the end from its cache.
  void NoteGrowth() { size_is_wrong_ = true; }
  // The kernel has just taken over the true size.
  void NoteTrueSize() { size_is_wrong_ = false; }

  // True while the kernel takes the file for longer than it is.
  bool size_is_wrong() const { return size_is_wrong_; }

  // Corrects what the above have noted; does nothing if nothing. Not to be
  // called by a request during which the kernel holds the inode's lock (fsync,
  // write, lseek). Gives up after some seconds; where others wait already, it
  // is done a little later.
  void Correct();

  // Sends what the kernel's cache holds to the server. False if that fails or
  // takes too long, and at once while something is being corrected or others
  // wait already; the caller must then expect anything. May be called by a
  // request during which the kernel holds the inode's lock.
  bool WriteBackPages();

 private:
  using Job = std::packaged_task<bool()>;
  enum class JobKind { kCorrection, kWriteBack };

  // Counts a correction as done when it goes.
  class CorrectionEnd {
   public:
    explicit CorrectionEnd(InodeKeeper& keeper) : keeper_(keeper) {}
    CorrectionEnd(const CorrectionEnd&) = delete;
    CorrectionEnd& operator=(const CorrectionEnd&) = delete;
    ~CorrectionEnd() {
      const std::scoped_lock lock(keeper_.mutex_);
      --keeper_.corrections_;
    }

   private:
    InodeKeeper& keeper_;
  };

  void Run(const std::stop_token& stop, const std::function<void()>& on_ready,
           const std::function<void(std::exception_ptr)>& on_failure);
  void Prepare();
  // Lets the thread do `work` and gives its result; false if it is not done
  // within `patience`, or may never be, and true for a correction that nobody
  // may wait for because others do.
  bool Perform(JobKind kind, std::function<bool()> work,
               std::chrono::milliseconds patience);

  MountAttendant& mount_;
  const FileTimes& times_;
  const bool root_is_file_;
  const uint64_t size_;
  std::atomic<bool> kernel_writeback_ = false;
  std::atomic<bool> prepared_ = false;
  std::atomic<bool> times_are_stale_ = false;
  std::atomic<bool> size_is_wrong_ = false;

  std::mutex mutex_;  // Never held during a system call on the mount.
  std::condition_variable_any changed_;
  // Guarded by mutex_.
  std::deque<Job> jobs_;
  unsigned corrections_ = 0;  // Waiting in jobs_, or being made.
  unsigned waiting_ = 0;      // Requests that wait for a job.
  bool has_ended_ = false;    // Nobody does jobs any more.

  std::jthread thread_;  // Last: it uses all of the above.
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_INODE_KEEPER_H_
