#ifndef PELLUCID_ENGINE_QCOW2_L2_CACHE_H_
#define PELLUCID_ENGINE_QCOW2_L2_CACHE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/block_device.h"
#include "engine/qcow2/offsets.h"

namespace pellucid::qcow2 {

// The parts of L2 tables that were used last, in host byte order. Tables are
// held in slices of up to 4 KiB, so that an image of any size needs no more
// than the stated bound, and one lookup never loads a whole 2 MiB table. L1
// tables of snapshots are held likewise.
//
// Safe to call from many threads. A hit takes no lock: each slot carries a
// version that is odd while the slot changes, and a reader whose version moved
// starts again. A miss reads the file without a lock; only filling the slot
// takes one.
//
// Entries that a writer changes live here until they are written: a slice with
// changes is not dropped, so that readers always find the newest.
class L2Cache {
 public:
  // A slice with changes, as it is to be written.
  struct ChangedSlice {
    HostOffset offset;
    std::vector<std::byte> bytes;  // In the byte order of the file.
  };

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

  // Loads the slice that holds `at` and keeps it until Unpin(); pins add up.
  // False if there is no room for it before changes have been written or other
  // pins are gone. Throws IoError.
  bool Pin(HostOffset at);
  void Unpin(HostOffset at);

  // Changes the words at `at`, which lie in one slice, pinned by the caller.
  // This and the functions on changes below: one thread at a time.
  void Change(HostOffset at, std::span<const uint64_t> words);

  // How many slices have changes.
  size_t changed_slices() const { return changed_slots_.size(); }
  size_t capacity_slices() const { return sets_ * kWays; }

  // The slices with changes, by offset, pinned and no longer counted as
  // changed. To be followed by ChangesWritten() or ChangesNotWritten().
  std::vector<ChangedSlice> TakeChanges();
  void ChangesWritten(std::span<const ChangedSlice> slices);
  void ChangesNotWritten(std::span<const ChangedSlice> slices);

  // Drops what is known of [begin, begin + length), a table that is no longer
  // in use; it has no changes and no pins.
  void Forget(HostOffset begin, uint64_t length);

 private:
  static constexpr size_t kMaxSliceWords = 512;
  static constexpr size_t kWays = 8;
  static constexpr size_t kLocks = 64;
  static constexpr uint64_t kNoSlice = ~uint64_t{0};

  struct Slot {
    std::atomic<uint64_t> version{0};
    std::atomic<uint64_t> slice{kNoSlice};  // Host offset / slice_bytes().
    std::atomic<bool> used{false};          // Since the clock hand passed.
    // Guarded by the set's lock:
    uint32_t pins = 0;
    bool changed = false;
  };

  std::atomic<uint64_t>* WordsOf(size_t slot) {
    return words_ + slot * slice_words_;
  }
  size_t FirstSlotOf(uint64_t slice) const;
  bool TryRead(size_t slot, uint64_t slice, size_t first,
               std::span<uint64_t> words);
  // Loads `slice` from the file and puts it in, if there is room; gives it to
  // `content` either way.
  void Load(uint64_t slice, std::span<uint64_t> content);
  // False if there is no room, or the slice may have changed since its group
  // had that generation.
  bool Insert(uint64_t slice, std::span<const uint64_t> content,
              uint64_t generation);
  std::mutex& LockOf(uint64_t slice) {
    return fill_locks_[FirstSlotOf(slice) / kWays % kLocks];
  }
  std::atomic<uint64_t>& GenerationOf(uint64_t slice) {
    return generations_[FirstSlotOf(slice) / kWays % kLocks];
  }
  // The slot of a slice, null if it has none. Requires the set's lock.
  Slot* Find(uint64_t slice);
  // The slot for a new slice, null if all are in use. Requires the set's lock.
  Slot* FindVictim(uint64_t slice);
  void SetChanged(Slot& slot);
  size_t NumberOf(const Slot& slot) const {
    return static_cast<size_t>(&slot - slots_.get());
  }

  BlockDevice& file_;
  const size_t slice_words_;
  const size_t sets_;  // A power of two.
  std::unique_ptr<Slot[]> slots_;
  std::atomic<uint64_t>* words_;  // Mapped, so that unused slots cost nothing.
  // Set number modulo kLocks: protects the change of a slot, and the hand.
  std::array<std::mutex, kLocks> fill_locks_;
  // Likewise: counts the changes, so that a reader who missed can tell whether
  // what it has read from the file was overtaken by one.
  std::array<std::atomic<uint64_t>, kLocks> generations_{};
  std::vector<size_t> changed_slots_;
  std::unique_ptr<uint8_t[]> hands_;  // One a set.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_L2_CACHE_H_
