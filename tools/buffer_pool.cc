#include "tools/buffer_pool.h"

#include <condition_variable>
#include <mutex>
#include <new>
#include <vector>

namespace pellucid::cli {
namespace {

constexpr std::align_val_t kAlignment{4096};

}  // namespace

struct BufferPool::Shared {
  Shared(size_t size, size_t max) : buffer_size(size), max_buffers(max) {
    free.reserve(max);
  }
  ~Shared() {
    for (std::byte* buffer : free) ::operator delete[](buffer, kAlignment);
  }

  const size_t buffer_size;
  const size_t max_buffers;
  std::mutex mutex;
  // Signalled when `free` or `stopped` changes.
  std::condition_variable changed;
  // Guarded by mutex:
  std::vector<std::byte*> free;  // Has room for all.
  size_t made = 0;
  bool stopped = false;
};

BufferPool::BufferPool(size_t buffer_size, size_t max_buffers)
    : shared_(std::make_shared<Shared>(buffer_size, max_buffers)) {}

BufferPool::Buffer BufferPool::Acquire() {
  Shared& pool = *shared_;
  std::unique_lock lock(pool.mutex);
  pool.changed.wait(lock, [&] {
    return pool.stopped || !pool.free.empty() || pool.made < pool.max_buffers;
  });
  if (pool.stopped) return nullptr;
  if (pool.free.empty()) {
    pool.free.push_back(static_cast<std::byte*>(
        ::operator new[](pool.buffer_size, kAlignment)));
    ++pool.made;
  }
  std::byte* const buffer = pool.free.back();
  pool.free.pop_back();
  lock.unlock();  // Should the next line fail, the deleter takes the lock.
  return Buffer(buffer, [shared = shared_](std::byte* done) {
    const std::lock_guard relock(shared->mutex);
    shared->free.push_back(done);
    shared->changed.notify_one();
  });
}

void BufferPool::Stop() {
  const std::lock_guard lock(shared_->mutex);
  shared_->stopped = true;
  shared_->changed.notify_all();
}

}  // namespace pellucid::cli
