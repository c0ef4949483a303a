#ifndef PELLUCID_ENGINE_CHUNK_WALK_H_
#define PELLUCID_ENGINE_CHUNK_WALK_H_

#include <atomic>
#include <cstdint>
#include <mutex>

namespace pellucid {

// Notices that somebody goes through a file in order, in requests of one thread
// or of several, and tells which chunks of it he has left behind.
//
// Safe to call from many threads. Never waits for another one.
class ChunkWalk {
 public:
  static constexpr uint64_t kChunkBytes = uint64_t{8} << 20;
  // Shorter requests are not those of somebody who goes through all of it.
  static constexpr uint64_t kLeastRequestBytes = uint64_t{64} << 10;

  // To be called after each request. Calls `passed(chunk)` for each chunk that
  // has been left behind by it, in order, or `lost()` if the request is
  // elsewhere, where another walk may begin; for one thread at a time.
  template <typename Passed, typename Lost>
  void Note(uint64_t offset, uint64_t length, Passed&& passed, Lost&& lost) {
    if (length < kLeastRequestBytes) return;
    bytes_.fetch_add(length, std::memory_order_relaxed);
    const uint64_t chunk = offset / kChunkBytes;
    if (chunk != chunk_.load(std::memory_order_relaxed)) {
      Enter(chunk, passed, lost);
    }
  }

 private:
  static constexpr uint64_t kDisorder = 4;  // Chunks.

  template <typename Passed, typename Lost>
  void Enter(uint64_t chunk, Passed& passed, Lost& lost) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return;
    uint64_t current = chunk_.load(std::memory_order_relaxed);
    // Of several threads that go in order together one may be ahead or late,
    // and an image that several threads have written is not quite in order
    // itself.
    if (chunk <= current && current - chunk <= kDisorder) return;
    const uint64_t bytes = bytes_.exchange(0, std::memory_order_relaxed);
    if (chunk > current && chunk - current <= kDisorder &&
        bytes >= (chunk - current) * kChunkBytes / 2) {
      for (; current < chunk; ++current) passed(current);
    } else {
      lost();
    }
    chunk_.store(chunk, std::memory_order_relaxed);
  }

  std::atomic<uint64_t> chunk_ = 0;  // Where the walk is.
  std::atomic<uint64_t> bytes_ = 0;  // Of requests since it came there.
  std::mutex mutex_;                 // Held in Enter().
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_CHUNK_WALK_H_
