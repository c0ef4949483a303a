#include "engine/qcow2/l2_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>

#include "engine/big_endian.h"

namespace pellucid::qcow2 {

L2Cache::L2Cache(BlockDevice& file, uint64_t max_slice_bytes,
                 uint64_t capacity_bytes)
    : file_(file),
      slice_words_(std::min<uint64_t>(max_slice_bytes / 8, kMaxSliceWords)),
      sets_(std::bit_floor(
          std::max<uint64_t>(capacity_bytes / (slice_words_ * 8 * kWays), 1))),
      slots_(std::make_unique<Slot[]>(sets_ * kWays)),
      hands_(std::make_unique<uint8_t[]>(sets_)) {
  void* memory =
      mmap(nullptr, sets_ * kWays * slice_words_ * 8, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  // Zero pages are zero-valued atomics; they need no constructor on any
  // platform that has lock-free 64-bit ones.
  static_assert(std::atomic<uint64_t>::is_always_lock_free);
  words_ = static_cast<std::atomic<uint64_t>*>(memory);
}

L2Cache::~L2Cache() { munmap(words_, sets_ * kWays * slice_words_ * 8); }

size_t L2Cache::FirstSlotOf(uint64_t slice) const {
  // Neighbouring slices go to neighbouring sets.
  return (slice & (sets_ - 1)) * kWays;
}

bool L2Cache::TryRead(size_t slot_number, uint64_t slice, size_t first,
                      std::span<uint64_t> words) {
  Slot& slot = slots_[slot_number];
  const std::atomic<uint64_t>* content = WordsOf(slot_number) + first;
  for (;;) {
    const uint64_t version = slot.version.load(std::memory_order_acquire);
    if (slot.slice.load(std::memory_order_acquire) != slice) return false;
    if (version % 2 != 0) continue;
    // Acquire keeps each load in front of the second look at the version.
    for (size_t i = 0; i < words.size(); ++i) {
      words[i] = content[i].load(std::memory_order_acquire);
    }
    if (slot.version.load(std::memory_order_relaxed) == version) break;
  }
  if (!slot.used.load(std::memory_order_relaxed)) {
    slot.used.store(true, std::memory_order_relaxed);
  }
  return true;
}

void L2Cache::Read(HostOffset at, std::span<uint64_t> words) {
  const uint64_t slice = at.value / slice_bytes();
  const size_t first = at.value % slice_bytes() / 8;
  const size_t slots = FirstSlotOf(slice);
  for (size_t way = 0; way < kWays; ++way) {
    if (TryRead(slots + way, slice, first, words)) return;
  }
  std::array<uint64_t, kMaxSliceWords> content;
  const std::span slice_content = std::span(content).first(slice_words_);
  file_.Read(slice * slice_bytes(), std::as_writable_bytes(slice_content));
  for (uint64_t& word : slice_content) word = SwapBigEndian(word);
  std::copy_n(slice_content.begin() + static_cast<ptrdiff_t>(first),
              words.size(), words.begin());
  Insert(slice, slice_content);
}

void L2Cache::Insert(uint64_t slice, std::span<const uint64_t> content) {
  const size_t slots = FirstSlotOf(slice);
  const std::lock_guard lock(fill_locks_[slots / kWays % kLocks]);
  for (size_t way = 0; way < kWays; ++way) {
    if (slots_[slots + way].slice.load(std::memory_order_relaxed) == slice) {
      return;  // Another thread was faster.
    }
  }
  // The clock: the hand passes over what was used since it came by last.
  uint8_t& hand = hands_[slots / kWays];
  for (size_t passed = 0; passed < kWays; ++passed) {
    if (!slots_[slots + hand].used.exchange(false, std::memory_order_relaxed)) {
      break;
    }
    hand = static_cast<uint8_t>((hand + 1) % kWays);
  }
  const size_t victim = slots + hand;
  hand = static_cast<uint8_t>((hand + 1) % kWays);

  Slot& slot = slots_[victim];
  std::atomic<uint64_t>* words = WordsOf(victim);
  const uint64_t version = slot.version.load(std::memory_order_relaxed);
  slot.version.store(version + 1, std::memory_order_relaxed);
  // Release keeps the odd version in front of each change.
  slot.slice.store(slice, std::memory_order_release);
  for (size_t i = 0; i < slice_words_; ++i) {
    words[i].store(content[i], std::memory_order_release);
  }
  slot.version.store(version + 2, std::memory_order_release);
}

}  // namespace pellucid::qcow2
