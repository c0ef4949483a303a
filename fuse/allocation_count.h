#ifndef PELLUCID_FUSE_ALLOCATION_COUNT_H_
#define PELLUCID_FUSE_ALLOCATION_COUNT_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/block_device.h"

namespace pellucid::fuse {

// Counts how many bytes of a device are stored, for st_blocks, in a thread of
// its own: the extents of a large image take a while. Safe to call from many
// threads.
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

  // Right after the start this waits for the count a little, at most 100 ms,
  // so that a small image never shows its estimate.
  Figure Get();

 private:
  void Run(std::stop_token stop);

  BlockDevice& device_;
  const uint64_t estimate_;
  const std::chrono::steady_clock::time_point patience_end_;

  std::mutex mutex_;
  std::condition_variable counted_;
  std::optional<uint64_t> blocks_;  // Guarded by mutex_; empty while counting.

  std::jthread thread_;  // Last: it uses all of the above.
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_ALLOCATION_COUNT_H_
