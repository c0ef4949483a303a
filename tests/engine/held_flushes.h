#ifndef PELLUCID_TESTS_ENGINE_HELD_FLUSHES_H_
#define PELLUCID_TESTS_ENGINE_HELD_FLUSHES_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace pellucid {

// A writable device whose flushes wait until they are let through. Safe to call
// from many threads.
template <typename Device>
class HeldFlushes : public Device {
 public:
  using Device::Device;

  void Flush() override {
    {
      std::unique_lock lock(mutex_);
      ++begun_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return begun_ <= let_through_; });
    }
    Device::Flush();
  }
  // Flushes that began, let through or not.
  uint64_t begun() const {
    const std::lock_guard lock(mutex_);
    return begun_;
  }
  // False if so many do not begin within a time that only a broken test takes.
  bool AwaitBegun(uint64_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20),
                             [&] { return begun_ >= count; });
  }
  // As many as `count` from the beginning.
  void LetThrough(uint64_t count) {
    const std::lock_guard lock(mutex_);
    let_through_ = count;
    changed_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t begun_ = 0;
  uint64_t let_through_ = 0;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_HELD_FLUSHES_H_
