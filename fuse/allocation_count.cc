#include "fuse/allocation_count.h"

#include <algorithm>
#include <exception>

namespace pellucid::fuse {
namespace {

constexpr std::chrono::milliseconds kPatience{100};
constexpr uint64_t kBlockSize = 512;
// Bounds the time that one question takes, and so how long stopping takes.
constexpr uint64_t kGreatestStep = uint64_t{64} << 30;

// The stored bytes of `device`, or nothing if `stop` was requested.
std::optional<uint64_t> CountStoredBytes(BlockDevice& device,
                                         const std::stop_token& stop) {
  const uint64_t size = device.size();
  uint64_t stored = 0;
  for (uint64_t offset = 0; offset < size;) {
    if (stop.stop_requested()) return std::nullopt;
    const Extent extent =
        device.ExtentAt(offset, std::min(size - offset, kGreatestStep));
    if (!extent.is_hole) stored += extent.length;
    offset += extent.length;
  }
  return stored;
}

}  // namespace

AllocationCount::AllocationCount(BlockDevice& device, uint64_t estimate)
    : device_(device),
      estimate_(estimate),
      patience_end_(std::chrono::steady_clock::now() + kPatience),
      thread_([this](std::stop_token stop) { Run(std::move(stop)); }) {}

AllocationCount::Figure AllocationCount::Get() {
  std::unique_lock lock(mutex_);
  counted_.wait_until(lock, patience_end_,
                      [this] { return blocks_.has_value(); });
  return {blocks_.value_or(estimate_), blocks_.has_value()};
}

void AllocationCount::Run(std::stop_token stop) {
  uint64_t blocks = estimate_;
  try {
    const std::optional<uint64_t> stored = CountStoredBytes(device_, stop);
    if (!stored) return;
    blocks = *stored / kBlockSize + (*stored % kBlockSize != 0);
  } catch (const std::exception&) {
    // Whoever reads the damaged place is told; a count is no reason to fail.
  }
  {
    const std::scoped_lock lock(mutex_);
    blocks_ = blocks;
  }
  counted_.notify_all();
}

}  // namespace pellucid::fuse
