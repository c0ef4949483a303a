#include "fuse/allocation_count.h"

#include <algorithm>
#include <exception>

namespace pellucid::fuse {
namespace {

constexpr std::chrono::milliseconds kFirstPatience{100};
constexpr std::chrono::milliseconds kPatience{10};
constexpr std::chrono::seconds kLeastInterval{1};
// How much longer than a count the pause before the next one is.
constexpr int kPauseFactor = 9;
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

uint64_t BlocksOf(uint64_t bytes) {
  return bytes / kBlockSize + (bytes % kBlockSize != 0);
}

}  // namespace

AllocationCount::AllocationCount(BlockDevice& device, uint64_t estimate)
    : device_(device), estimate_(estimate) {}

void AllocationCount::Start() {
  start_ = std::chrono::steady_clock::now();
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

AllocationCount::Figure AllocationCount::Get() {
  std::unique_lock lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  auto patience_end = start_ + kFirstPatience;
  if (changed_ && !is_counting_ && now >= next_count_) {
    is_counting_ = true;
    patience_end = now + kPatience;
    counted_.notify_all();
  }
  counted_.wait_until(lock, patience_end, [this] { return !is_counting_; });
  return {blocks_.value_or(estimate_), !is_counting_ && !changed_};
}

void AllocationCount::Run(const std::stop_token& stop) {
  while (Count(stop)) {
    std::unique_lock lock(mutex_);
    if (!counted_.wait(lock, stop, [this] { return is_counting_; })) return;
  }
}

bool AllocationCount::Count(const std::stop_token& stop) {
  // Before the first look: a change during the count is noted anew.
  changed_ = false;
  const auto start = std::chrono::steady_clock::now();
  std::optional<uint64_t> blocks;
  try {
    const std::optional<uint64_t> stored = CountStoredBytes(device_, stop);
    if (!stored) return false;
    blocks = BlocksOf(*stored);
  } catch (const std::exception&) {
    // Whoever reads the damaged place is told; a count is no reason to fail.
  }
  {
    const std::scoped_lock lock(mutex_);
    if (blocks) blocks_ = blocks;
    is_counting_ = false;
    const auto end = std::chrono::steady_clock::now();
    next_count_ =
        std::max(end + kPauseFactor * (end - start), start + kLeastInterval);
  }
  counted_.notify_all();
  return true;
}

AllocationCount::Figure AllocationCounts::Get(uint64_t key,
                                              BlockDevice& device) {
  std::unique_lock lock(mutex_);
  const auto [entry, is_new] = blocks_.try_emplace(key);
  // Others may make the table larger, which leaves references alone.
  const std::optional<uint64_t>& blocks = entry->second;
  if (is_new) {
    waiting_.emplace_back(key, &device);
    if (!thread_.joinable()) {
      thread_ =
          std::jthread([this](const std::stop_token& stop) { Run(stop); });
    }
    changed_.notify_all();
  }
  changed_.wait_for(lock, kFirstPatience, [&] { return blocks.has_value(); });
  return {blocks.value_or(BlocksOf(device.size())), blocks.has_value()};
}

void AllocationCounts::Run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
    const auto [key, device] = waiting_.front();
    waiting_.pop_front();
    lock.unlock();
    uint64_t blocks = BlocksOf(device->size());
    try {
      const std::optional<uint64_t> stored = CountStoredBytes(*device, stop);
      if (!stored) return;
      blocks = BlocksOf(*stored);
    } catch (const std::exception&) {
      // As above: whoever reads the damaged place is told.
    }
    lock.lock();
    blocks_[key] = blocks;
    changed_.notify_all();
  }
}

}  // namespace pellucid::fuse
