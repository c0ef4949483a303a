#ifndef PELLUCID_ENGINE_WRITABLE_DEVICE_H_
#define PELLUCID_ENGINE_WRITABLE_DEVICE_H_

#include "engine/block_device.h"
#include "engine/errors.h"

namespace pellucid {

// What becomes of the host's space under bytes that are to read as zeros.
enum class ZeroMode {
  kKeepSpace,  // Stays reserved, as with FALLOC_FL_ZERO_RANGE.
  kFreeSpace,  // Is given back where possible, as with FALLOC_FL_PUNCH_HOLE.
};

// A block device whose bytes can be changed. Safe to call from many threads:
// of two writes to one byte at the same time one wins, and no write changes a
// byte beside its own, whatever the sectors and clusters below.
class WritableDevice : public BlockDevice {
 public:
  // Stores `in` at `offset`. Requires offset + in.size() <= size(). Reads see
  // it from the return on; it is neither durable nor ordered until Flush()
  // returns (docs/crash-consistency.md). After an error the range holds old and
  // new bytes, in any mixture. Throws IoError and CorruptImage.
  virtual void Write(uint64_t offset, std::span<const std::byte> in) = 0;

  // Makes the range read as zeros, and durably so behind the next Flush().
  // Requires offset + length <= size(). Throws as Write() does.
  virtual void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) = 0;

  // Returns when everything that was written before the call is durable: a
  // barrier. After an error nothing may be taken for durable, nothing is
  // forgotten, and the next Flush() tries all of it again; unless the host
  // itself failed to flush, which makes every later one fail as well. Throws
  // IoError.
  virtual void Flush() = 0;
};

// A writable device whose end can move, such as a host file. Here Write() may
// end behind the end, which it moves there; bytes in between become zeros.
class ResizableDevice : public WritableDevice {
 public:
  // Cuts the device or extends it with zeros. Not while anything else uses it.
  // Throws IoError.
  virtual void Resize(uint64_t size) = 0;

  // False if the end is where it is, as that of a block device: then Resize()
  // fails.
  virtual bool can_resize() const { return true; }

  // Gives the host the space of a range back that is not used any more, if that
  // is easy. The range reads as anything behind it.
  virtual void FreeSpace(uint64_t offset, uint64_t length) noexcept {
    try {
      WriteZeroes(offset, length, ZeroMode::kFreeSpace);
    } catch (const Error&) {
      // It was only an offer.
    }
  }
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_WRITABLE_DEVICE_H_
