#ifndef PELLUCID_FUSE_ACTIVITY_H_
#define PELLUCID_FUSE_ACTIVITY_H_

#include <atomic>
#include <chrono>

namespace pellucid::fuse {

// When the server last heard of somebody who uses the mount. Requests that come
// with an open file, such as reads and writes, need not be noted: the file is,
// until it is closed. Safe to call from many threads; nobody waits.
class Activity {
 public:
  using Clock = std::chrono::steady_clock;

  void NoteRequest() {
    last_.store(Clock::now().time_since_epoch(), std::memory_order_relaxed);
  }
  void NoteOpen() { ++open_files_; }
  void NoteClose() {
    // In this order: whoever sees no open file sees when that was.
    NoteRequest();
    --open_files_;
  }

  bool has_open_files() const { return open_files_ > 0; }
  // The last request or close.
  Clock::time_point last() const { return Clock::time_point(last_.load()); }

 private:
  std::atomic<Clock::duration> last_ = Clock::now().time_since_epoch();
  std::atomic<unsigned> open_files_ = 0;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_ACTIVITY_H_
