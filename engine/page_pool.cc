#include "engine/page_pool.h"

#include <sys/mman.h>

#include <new>

namespace pellucid {

PlaintextMemory::PlaintextMemory(size_t size) : size_(size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  (void)madvise(memory, size, MADV_DONTDUMP);
  memory_ = static_cast<std::byte*>(memory);
}

PlaintextMemory::~PlaintextMemory() { munmap(memory_, size_); }

PagePool::PagePool(uint32_t pages)
    : pages_(pages),
      memory_(size_t{pages} * kPageBytes),
      next_(new std::atomic<uint32_t>[pages]) {}

std::optional<uint32_t> PagePool::Take() {
  uint64_t head = head_;
  while (static_cast<uint32_t>(head) != kNone) {
    const uint32_t page = static_cast<uint32_t>(head);
    const uint64_t changed = (head >> 32) + 1;
    // May be of another time if the page has just been taken; then the count
    // of changes has moved and the exchange fails.
    const uint32_t next = next_[page].load(std::memory_order_relaxed);
    if (head_.compare_exchange_weak(head, changed << 32 | next)) {
      ++used_;
      return page;
    }
  }
  uint32_t fresh = untouched_;
  while (fresh < pages_) {
    if (untouched_.compare_exchange_weak(fresh, fresh + 1)) {
      ++used_;
      return fresh;
    }
  }
  return std::nullopt;
}

void PagePool::Return(uint32_t page) {
  // First: whoever takes the page at once must not count as one more.
  --used_;
  uint64_t head = head_;
  do {
    next_[page].store(static_cast<uint32_t>(head), std::memory_order_relaxed);
  } while (!head_.compare_exchange_weak(head, ((head >> 32) + 1) << 32 | page));
}

}  // namespace pellucid
