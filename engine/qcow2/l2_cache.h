#ifndef PELLUCID_ENGINE_QCOW2_L2_CACHE_H_
#define PELLUCID_ENGINE_QCOW2_L2_CACHE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "engine/block_device.h"
#include "engine/qcow2/offsets.h"

namespace pellucid::qcow2 {

// The parts of L2 tables that were used last, in host byte order. Tables are
// held in slices of up to 4 KiB, so that an image of any size needs no more
// than the stated bound, and one lookup never loads a whole 2 MiB table.
//
// Safe to call from many threads. A hit takes no lock: each slot carries a
// version that is odd while the slot changes, and a reader whose version moved
// starts again. A miss reads the file without a lock; only filling the slot
// takes one.
class L2Cache {
 public:
  // Borrows `file`, which must outlive the cache. Holds at most
  // `capacity_bytes`, rounded up to one set of slots; memory is taken as slots
  // are used. `max_slice_bytes` is the length of an L2 table.
  L2Cache(BlockDevice& file, uint64_t max_slice_bytes, uint64_t capacity_bytes);
  ~L2Cache();
  L2Cache(const L2Cache&) = delete;
  L2Cache& operator=(const L2Cache&) = delete;

  uint64_t slice_bytes() const { return slice_words_ * 8; }

  // Copies the 64-bit words at `at`, a multiple of 8. They must lie in one
  // slice, that is in one aligned block of slice_bytes(), and in the file.
  // Throws IoError.
  void Read(HostOffset at, std::span<uint64_t> words);

 private:
  static constexpr size_t kMaxSliceWords = 512;
  static constexpr size_t kWays = 8;
  static constexpr size_t kLocks = 64;
  static constexpr uint64_t kNoSlice = ~uint64_t{0};

  struct Slot {
    std::atomic<uint64_t> version{0};
    std::atomic<uint64_t> slice{kNoSlice};  // Host offset / slice_bytes().
    std::atomic<bool> used{false};          // Since the clock hand passed.
  };

  std::atomic<uint64_t>* WordsOf(size_t slot) {
    return words_ + slot * slice_words_;
  }
  size_t FirstSlotOf(uint64_t slice) const;
  bool TryRead(size_t slot, uint64_t slice, size_t first,
               std::span<uint64_t> words);
  void Insert(uint64_t slice, std::span<const uint64_t> content);

  BlockDevice& file_;
  const size_t slice_words_;
  const size_t sets_;  // A power of two.
  std::unique_ptr<Slot[]> slots_;
  std::atomic<uint64_t>* words_;  // Mapped, so that unused slots cost nothing.
  // Set number modulo kLocks: protects the change of a slot, and the hand.
  std::array<std::mutex, kLocks> fill_locks_;
  std::unique_ptr<uint8_t[]> hands_;  // One a set.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_L2_CACHE_H_
