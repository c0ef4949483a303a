#ifndef PELLUCID_ENGINE_TRANSFER_BUFFER_H_
#define PELLUCID_ENGINE_TRANSFER_BUFFER_H_

#include <cstddef>
#include <memory>
#include <span>

namespace pellucid {

// A buffer in which a device prepares what it writes, such as ciphertext:
// the caller's bytes are not to change. The thread keeps it for the next write,
// so that only the first one allocates. A device below that needs a buffer as
// well, in the same thread, gets another. Its content is whatever it was left
// with. To be destroyed in the thread that made it.
class TransferBuffer {
 public:
  static constexpr size_t kSize = 256 << 10;
  static constexpr size_t kAlignment = 4096;  // Good for O_DIRECT.

  TransferBuffer();
  TransferBuffer(const TransferBuffer&) = delete;
  TransferBuffer& operator=(const TransferBuffer&) = delete;
  ~TransferBuffer();

  // All of it, kSize bytes.
  std::span<std::byte> bytes();

 private:
  struct Block;

  std::unique_ptr<Block> block_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_TRANSFER_BUFFER_H_
