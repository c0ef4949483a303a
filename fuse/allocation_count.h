#ifndef PELLUCID_FUSE_ALLOCATION_COUNT_H_
#define PELLUCID_FUSE_ALLOCATION_COUNT_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <unordered_map>
#include <utility>

#include "engine/block_device.h"

namespace pellucid::fuse {

// Counts how many bytes of a device are stored, for st_blocks, in a thread of
// its own: the extents of a large image take a while. After a change it counts
// again when somebody asks, once a second at most and a tenth of the time at
// most. Safe to call from many threads.
class AllocationCount {
 public:
  struct Figure {
    uint64_t blocks;  // Of 512 bytes.
    bool is_final;    // It will not change any more.
  };

  // Starts counting. `device` is borrowed; `estimate` (in blocks) is the figure
  // until the count is complete, and for good if the device cannot say.
  AllocationCount(BlockDevice& device, uint64_t estimate);
  AllocationCount(const AllocationCount&) = delete;
  AllocationCount& operator=(const AllocationCount&) = delete;
  // Abandons the count.
  ~AllocationCount() = default;

  // Waits for the count a little, so that a small image never shows its
  // estimate: at most 100 ms right after the start and 10 ms after a change.
  Figure Get();

  // What is stored may have changed.
  void NoteChange() {
    // Looked at first: the line stays shared between writing threads.
    if (!changed_.load(std::memory_order_relaxed)) changed_ = true;
  }

 private:
  void Run(const std::stop_token& stop);
  // False if `stop` was requested.
  bool Count(const std::stop_token& stop);

  BlockDevice& device_;
  const uint64_t estimate_;
  const std::chrono::steady_clock::time_point start_;
  std::atomic<bool> changed_ = false;

  std::mutex mutex_;
  std::condition_variable_any counted_;
  // Guarded by mutex_.
  std::optional<uint64_t> blocks_;  // Empty until counted for the first time.
  bool is_counting_ = true;         // Or has been asked to.
  std::chrono::steady_clock::time_point next_count_;

  std::jthread thread_;  // Last: it uses all of the above.
};

// The same for many devices whose content stays as it is, one after the other
// in one thread, which starts with the first question. Safe to call from many
// threads.
class AllocationCounts {
 public:
  AllocationCounts() = default;
  AllocationCounts(const AllocationCounts&) = delete;
  AllocationCounts& operator=(const AllocationCounts&) = delete;
  // Abandons what is being counted.
  ~AllocationCounts() = default;

  // Of `device`, which is borrowed and goes by `key`. Waits for the count a
  // little; all of the device counts as stored until it is complete, and for
  // good if the device cannot say.
  AllocationCount::Figure Get(uint64_t key, BlockDevice& device);

 private:
  void Run(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  // Guarded by mutex_.
  std::deque<std::pair<uint64_t, BlockDevice*>> waiting_;
  // By key; empty until counted.
  std::unordered_map<uint64_t, std::optional<uint64_t>> blocks_;

  std::jthread thread_;  // Last: it uses all of the above.
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_ALLOCATION_COUNT_H_
