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
  Load(slice, std::span(content).first(slice_words_));
  std::copy_n(content.begin() + static_cast<ptrdiff_t>(first), words.size(),
              words.begin());
}

void L2Cache::Load(uint64_t slice, std::span<uint64_t> content) {
  const size_t slots = FirstSlotOf(slice);
  for (;;) {
    const uint64_t generation = GenerationOf(slice).load();
    for (size_t way = 0; way < kWays; ++way) {
      if (TryRead(slots + way, slice, 0, content)) return;
    }
    // A snapshot's L1 table, unlike L2 tables, may end with the file.
    ReadZeroPadded(file_, slice * slice_bytes(),
                   std::as_writable_bytes(content));
    for (uint64_t& word : content) word = SwapBigEndian(word);
    // If somebody has changed the slice and written it meanwhile, what was read
    // may be old or half of each.
    if (GenerationOf(slice).load() != generation) continue;
    Insert(slice, content, generation);
    return;
  }
}

L2Cache::Slot* L2Cache::Find(uint64_t slice) {
  const size_t slots = FirstSlotOf(slice);
  for (size_t way = 0; way < kWays; ++way) {
    Slot& slot = slots_[slots + way];
    if (slot.slice.load(std::memory_order_relaxed) == slice) return &slot;
  }
  return nullptr;
}

L2Cache::Slot* L2Cache::FindVictim(uint64_t slice) {
  const size_t slots = FirstSlotOf(slice);
  // The clock: the hand passes over what was used since it came by last.
  uint8_t& hand = hands_[slots / kWays];
  for (size_t passed = 0; passed < 2 * kWays; ++passed) {
    Slot& slot = slots_[slots + hand];
    hand = static_cast<uint8_t>((hand + 1) % kWays);
    if (slot.pins != 0 || slot.changed) continue;
    if (!slot.used.exchange(false, std::memory_order_relaxed)) return &slot;
  }
  return nullptr;
}

bool L2Cache::Insert(uint64_t slice, std::span<const uint64_t> content,
                     uint64_t generation) {
  const std::lock_guard lock(LockOf(slice));
  if (GenerationOf(slice).load() != generation) return false;
  if (Find(slice) != nullptr) return true;  // Another thread was faster.
  Slot* const slot = FindVictim(slice);
  if (slot == nullptr) return false;
  std::atomic<uint64_t>* words = WordsOf(NumberOf(*slot));
  const uint64_t version = slot->version.load(std::memory_order_relaxed);
  slot->version.store(version + 1, std::memory_order_relaxed);
  // Release keeps the odd version in front of each change.
  slot->slice.store(slice, std::memory_order_release);
  for (size_t i = 0; i < slice_words_; ++i) {
    words[i].store(content[i], std::memory_order_release);
  }
  slot->version.store(version + 2, std::memory_order_release);
  return true;
}

bool L2Cache::Pin(HostOffset at) {
  const uint64_t slice = at.value / slice_bytes();
  std::array<uint64_t, kMaxSliceWords> content;
  // Between the loading and the pin another thread's slice may take the place.
  for (size_t attempt = 0; attempt < kWays; ++attempt) {
    {
      const std::lock_guard lock(LockOf(slice));
      if (Slot* const slot = Find(slice)) {
        ++slot->pins;
        return true;
      }
      if (FindVictim(slice) == nullptr) return false;
    }
    Load(slice, std::span(content).first(slice_words_));
  }
  return false;
}

void L2Cache::Unpin(HostOffset at) {
  const uint64_t slice = at.value / slice_bytes();
  const std::lock_guard lock(LockOf(slice));
  --Find(slice)->pins;
}

void L2Cache::Change(HostOffset at, std::span<const uint64_t> words) {
  const uint64_t slice = at.value / slice_bytes();
  const std::lock_guard lock(LockOf(slice));
  Slot& slot = *Find(slice);
  std::atomic<uint64_t>* const content =
      WordsOf(NumberOf(slot)) + at.value % slice_bytes() / 8;
  GenerationOf(slice).fetch_add(1);
  const uint64_t version = slot.version.load(std::memory_order_relaxed);
  slot.version.store(version + 1, std::memory_order_relaxed);
  for (size_t i = 0; i < words.size(); ++i) {
    content[i].store(words[i], std::memory_order_release);
  }
  slot.version.store(version + 2, std::memory_order_release);
  SetChanged(slot);
}

void L2Cache::SetChanged(Slot& slot) {
  if (slot.changed) return;
  slot.changed = true;
  changed_slots_.push_back(NumberOf(slot));
}

std::vector<L2Cache::ChangedSlice> L2Cache::TakeChanges() {
  std::vector<ChangedSlice> slices;
  slices.reserve(changed_slots_.size());
  for (const size_t number : changed_slots_) {
    Slot& slot = slots_[number];
    const uint64_t slice = slot.slice.load(std::memory_order_relaxed);
    const std::lock_guard lock(LockOf(slice));
    slot.changed = false;
    ++slot.pins;
    ChangedSlice& taken = slices.emplace_back(
        ChangedSlice{.offset = {slice * slice_bytes()},
                     .bytes = std::vector<std::byte>(slice_bytes())});
    const std::atomic<uint64_t>* const words = WordsOf(number);
    for (size_t word = 0; word < slice_words_; ++word) {
      StoreBigEndian(taken.bytes, word * 8,
                     words[word].load(std::memory_order_relaxed));
    }
  }
  changed_slots_.clear();
  std::ranges::sort(slices, {}, &ChangedSlice::offset);
  return slices;
}

void L2Cache::ChangesWritten(std::span<const ChangedSlice> slices) {
  for (const ChangedSlice& slice : slices) Unpin(slice.offset);
}

void L2Cache::ChangesNotWritten(std::span<const ChangedSlice> slices) {
  for (const ChangedSlice& changed : slices) {
    const uint64_t slice = changed.offset.value / slice_bytes();
    const std::lock_guard lock(LockOf(slice));
    Slot& slot = *Find(slice);
    SetChanged(slot);
    --slot.pins;
  }
}

void L2Cache::Forget(HostOffset begin, uint64_t length) {
  for (uint64_t at = begin.value; at < begin.value + length;
       at += slice_bytes()) {
    const uint64_t slice = at / slice_bytes();
    const std::lock_guard lock(LockOf(slice));
    GenerationOf(slice).fetch_add(1);
    Slot* const slot = Find(slice);
    if (slot == nullptr) continue;
    const uint64_t version = slot->version.load(std::memory_order_relaxed);
    slot->version.store(version + 1, std::memory_order_relaxed);
    slot->slice.store(kNoSlice, std::memory_order_release);
    slot->version.store(version + 2, std::memory_order_release);
  }
}

}  // namespace pellucid::qcow2
