#ifndef PELLUCID_TESTS_ENGINE_WRITABLE_MEMORY_DEVICE_H_
#define PELLUCID_TESTS_ENGINE_WRITABLE_MEMORY_DEVICE_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/writable_device.h"

namespace pellucid {

// A writable device in memory that records what happens to it, fails on request
// and can be made slow or be stopped in the middle of a write. Unlike
// RecordingDevice it is safe to call from many threads. A range that is not in
// the device throws std::logic_error.
class WritableMemoryDevice : public WritableDevice {
 public:
  enum class Kind { kWrite, kZeroes, kFlush };
  struct Event {
    Kind kind;
    uint64_t offset = 0;
    uint64_t length = 0;
    bool operator==(const Event&) const = default;
  };

  explicit WritableMemoryDevice(std::vector<std::byte> content)
      : content_(std::move(content)) {}

  // A copy of the content, and what happened to it since Forget(); failed calls
  // are not among it.
  std::vector<std::byte> bytes() const {
    const std::lock_guard lock(mutex_);
    return content_;
  }
  std::vector<Event> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  void Forget() {
    const std::lock_guard lock(mutex_);
    events_.clear();
    reads_ = 0;
  }
  uint64_t reads() const { return reads_; }
  // Calls that wrote, and calls of Flush(), those that failed included.
  uint64_t writes() const { return writes_; }
  uint64_t flushes() const { return flushes_; }

  // From now on what writes to [begin, end) throws IoError(host_errno). An
  // empty range fails nothing.
  void FailWrites(uint64_t begin, uint64_t end, int host_errno) {
    const std::lock_guard lock(mutex_);
    bad_begin_ = begin;
    bad_end_ = end;
    errno_ = host_errno;
  }
  // The n-th write from now on (1 is the next one) fails, and only that.
  void FailNthWrite(uint64_t n, int host_errno) {
    const std::lock_guard lock(mutex_);
    fail_in_ = n;
    errno_ = host_errno;
  }
  void FailFlushes(uint64_t count, int host_errno) {
    const std::lock_guard lock(mutex_);
    failing_flushes_ = count;
    errno_ = host_errno;
  }
  void SlowDown(std::chrono::microseconds each) { delay_us_ = each.count(); }

  // Stops calls that write to [begin, end) before they change anything, until
  // Resume().
  void StopWrites(uint64_t begin, uint64_t end) {
    const std::lock_guard lock(mutex_);
    stop_begin_ = begin;
    stop_end_ = end;
  }
  void Resume() {
    const std::lock_guard lock(mutex_);
    stop_end_ = stop_begin_;
    changed_.notify_all();
  }
  // Returns when `count` calls are stopped.
  void AwaitStopped(unsigned count = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ >= count; });
  }

  // Called by each read when it has its bytes and before it returns them. Set
  // it while nothing reads.
  std::function<void()> behind_read;

  uint64_t size() const override { return content_.size(); }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    {
      const std::lock_guard lock(mutex_);
      Check(offset, out.size());
      ++reads_;
      std::copy_n(content_.begin() + static_cast<ptrdiff_t>(offset), out.size(),
                  out.begin());
    }
    if (behind_read) behind_read();
  }

  // Blocks of 512 zero bytes are holes.
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    const std::lock_guard lock(mutex_);
    Check(offset, 1);
    const uint64_t begin = offset / 512 * 512;
    const uint64_t end = std::min<uint64_t>(begin + 512, content_.size());
    const bool is_hole =
        std::all_of(content_.begin() + static_cast<ptrdiff_t>(begin),
                    content_.begin() + static_cast<ptrdiff_t>(end),
                    [](std::byte b) { return b == std::byte{0}; });
    return {.length = std::min(max_length, end - offset), .is_hole = is_hole};
  }

  void Write(uint64_t offset, std::span<const std::byte> in) override {
    Change(Kind::kWrite, offset, in.size(),
           [&](auto to) { std::ranges::copy(in, to); });
  }

  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode) override {
    Change(Kind::kZeroes, offset, length,
           [&](auto to) { std::fill_n(to, length, std::byte{0}); });
  }

  void Flush() override {
    Delay();
    const std::lock_guard lock(mutex_);
    ++flushes_;
    if (failing_flushes_ != 0) {
      --failing_flushes_;
      throw IoError(errno_, "memory: injected fault");
    }
    events_.push_back({.kind = Kind::kFlush});
  }

 private:
  template <typename Store>
  void Change(Kind kind, uint64_t offset, uint64_t length, Store store) {
    Delay();
    std::unique_lock lock(mutex_);
    Check(offset, length);
    ++writes_;
    const auto touches = [&](uint64_t begin, uint64_t end) {
      return offset < end && begin < offset + length;
    };
    if (touches(stop_begin_, stop_end_)) {
      ++stopped_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return !touches(stop_begin_, stop_end_); });
      --stopped_;
    }
    if (touches(bad_begin_, bad_end_) || (fail_in_ != 0 && --fail_in_ == 0)) {
      throw IoError(errno_, "memory: injected fault");
    }
    store(content_.begin() + static_cast<ptrdiff_t>(offset));
    events_.push_back({.kind = kind, .offset = offset, .length = length});
  }
  void Delay() const {
    if (delay_us_ != 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(delay_us_));
    }
  }
  void Check(uint64_t offset, uint64_t length) const {
    if (offset > content_.size() || length > content_.size() - offset) {
      throw std::logic_error("access behind the end of the device");
    }
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::byte> content_;
  std::vector<Event> events_;
  uint64_t bad_begin_ = 0;
  uint64_t bad_end_ = 0;
  uint64_t stop_begin_ = 0;
  uint64_t stop_end_ = 0;
  unsigned stopped_ = 0;
  uint64_t fail_in_ = 0;
  uint64_t failing_flushes_ = 0;
  int errno_ = 0;
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> flushes_{0};
  std::atomic<int64_t> delay_us_{0};
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_WRITABLE_MEMORY_DEVICE_H_
