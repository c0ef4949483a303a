#ifndef PELLUCID_ENGINE_WRITABLE_DEVICE_H_
#define PELLUCID_ENGINE_WRITABLE_DEVICE_H_

#include "engine/block_device.h"

namespace pellucid {

// A block device whose bytes can be changed. Safe to call from many threads.
class WritableDevice : public BlockDevice {
 public:
  // Stores `in` at `offset`. Requires offset + in.size() <= size(). Neither
  // durable nor ordered until Flush() returns. Throws IoError.
  virtual void Write(uint64_t offset, std::span<const std::byte> in) = 0;

  // Returns when everything that was written is durable: a barrier.
  // Throws IoError.
  virtual void Flush() = 0;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_WRITABLE_DEVICE_H_
