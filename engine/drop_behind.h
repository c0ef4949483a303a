#ifndef PELLUCID_ENGINE_DROP_BEHIND_H_
#define PELLUCID_ENGINE_DROP_BEHIND_H_

#include <atomic>
#include <cstdint>
#include <mutex>

namespace pellucid {

// Takes a host file out of the host's page cache behind somebody who reads it
// in order: above a mount the kernel keeps the plaintext, and would keep
// everything twice. Only what the reading itself has brought there goes; what
// was there before belongs to somebody who may want it again, and a file that
// is read here and there stays, too. (docs/architecture.md, "The page cache")
//
// Safe to call from many threads. Never waits for another one.
class DropBehind {
 public:
  // Of what is looked at and dropped; two of them are left behind the reader.
  static constexpr uint64_t kChunkBytes = uint64_t{8} << 20;
  // So many chunks before the reader comes to one it is looked at. The host's
  // own read-ahead must not have been there: that of a disk may be 16 MiB.
  static constexpr unsigned kLookAhead = 4;
  // Shorter reads are not those of somebody who reads it all.
  static constexpr uint64_t kLeastReadBytes = uint64_t{64} << 10;

  // `fd` is borrowed.
  explicit DropBehind(int fd) : fd_(fd) {}

  // To be called after each read.
  void NoteRead(uint64_t offset, uint64_t length) {
    if (length < kLeastReadBytes) return;
    const uint64_t chunk = offset / kChunkBytes;
    if (chunk == chunk_.load(std::memory_order_relaxed)) {
      read_bytes_.fetch_add(length, std::memory_order_relaxed);
    } else {
      Enter(chunk, length);
    }
  }

 private:
  void Enter(uint64_t chunk, uint64_t length);
  // The reader has gone through chunk `current`.
  void Advance(uint64_t current);
  // Whether next to nothing of a chunk is in the page cache, as far as the host
  // tells: to somebody who may not write the file it says that all is.
  bool IsCold(uint64_t chunk) const;
  void Drop(uint64_t chunk) const;

  const int fd_;
  std::atomic<uint64_t> chunk_ = 0;       // Where the reader is.
  std::atomic<uint64_t> read_bytes_ = 0;  // Since he came there.

  std::mutex mutex_;  // Held while a chunk is looked at. Protects these:
  // The chunk before was cold until it was read through.
  bool previous_is_ours_ = false;
  // Bit n: so was chunk_ + n when it was looked at.
  uint32_t was_cold_ = 0;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_DROP_BEHIND_H_
