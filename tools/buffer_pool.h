#ifndef PELLUCID_TOOLS_BUFFER_POOL_H_
#define PELLUCID_TOOLS_BUFFER_POOL_H_

#include <cstddef>
#include <memory>

namespace pellucid::cli {

// A bounded number of buffers of one size that threads hand to each other. Safe
// to call from many threads.
class BufferPool {
 public:
  // The first byte of a buffer, aligned to 4096. The last owner gives it back
  // to the pool, if that is there still.
  using Buffer = std::shared_ptr<std::byte>;

  BufferPool(size_t buffer_size, size_t max_buffers);
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A buffer of any content. Waits until there is one; null after Stop().
  Buffer Acquire();
  // Nobody waits any more.
  void Stop();

 private:
  // Lives as long as the pool or one of its buffers.
  struct Shared;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_BUFFER_POOL_H_
