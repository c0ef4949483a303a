#include "fuse/read_buffer.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace pellucid::fuse {
namespace {

constexpr size_t kPageSize = 4096;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct Buffer {
  std::unique_ptr<std::byte, Free> memory;
  size_t capacity = 0;
};

}  // namespace

std::span<std::byte> ReadBufferOfThisThread(size_t size) {
  thread_local Buffer buffer;
  if (size > buffer.capacity) {
    const size_t capacity = (size + kPageSize - 1) / kPageSize * kPageSize;
    auto* const memory =
        static_cast<std::byte*>(std::aligned_alloc(kPageSize, capacity));
    if (memory == nullptr) throw std::bad_alloc();
    buffer.memory.reset(memory);
    buffer.capacity = capacity;
  }
  return {buffer.memory.get(), size};
}

}  // namespace pellucid::fuse
