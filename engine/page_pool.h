#ifndef PELLUCID_ENGINE_PAGE_POOL_H_
#define PELLUCID_ENGINE_PAGE_POOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace pellucid {

// Memory for plaintext: mapped, kept out of core dumps, and given back to the
// kernel, which wipes it, at the end. Only what is touched takes memory.
class PlaintextMemory {
 public:
  // Throws std::bad_alloc.
  explicit PlaintextMemory(size_t size);
  ~PlaintextMemory();
  PlaintextMemory(const PlaintextMemory&) = delete;
  PlaintextMemory& operator=(const PlaintextMemory&) = delete;

  std::span<std::byte> bytes() const { return {memory_, size_}; }

 private:
  std::byte* memory_;
  size_t size_;
};

// A fixed number of pages of plaintext memory. Safe to call from many threads;
// takes no lock. Pages have numbers from 0. The pages used last are handed out
// first, so that memory is touched only as far as is necessary.
class PagePool {
 public:
  static constexpr size_t kPageBytes = 4096;

  // Throws std::bad_alloc.
  explicit PagePool(uint32_t pages);

  uint32_t pages() const { return pages_; }
  // Counts a page before it holds anything and until it is given back.
  uint32_t used() const { return used_; }

  // Nothing if all pages are in use.
  std::optional<uint32_t> Take();
  void Return(uint32_t page);

  std::span<std::byte, kPageBytes> Bytes(uint32_t page) const {
    return std::span<std::byte, kPageBytes>(
        memory_.bytes().data() + size_t{page} * kPageBytes, kPageBytes);
  }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};

  const uint32_t pages_;
  PlaintextMemory memory_;
  std::unique_ptr<std::atomic<uint32_t>[]> next_;  // Behind a returned page.
  // The page returned last, and in the upper half a count of changes, so that
  // a head that came back is not taken for one that never left.
  std::atomic<uint64_t> head_{kNone};
  std::atomic<uint32_t> untouched_{0};  // Pages from here on were never used.
  std::atomic<uint32_t> used_{0};
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_PAGE_POOL_H_
