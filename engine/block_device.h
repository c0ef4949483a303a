#ifndef PELLUCID_ENGINE_BLOCK_DEVICE_H_
#define PELLUCID_ENGINE_BLOCK_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace pellucid {

// A run of bytes that are all stored, or all absent and read as zeros.
struct Extent {
  uint64_t length;  // In bytes, never 0.
  bool is_hole;     // Nothing is stored here and it reads as zeros.
};

// A fixed-size array of bytes: a host file, the guest view of a qcow2 image,
// or the plaintext of a LUKS volume. Devices stack: each owns the one below.
// Offsets and sizes are bytes, of any alignment. Safe to call from many
// threads.
class BlockDevice {
 public:
  BlockDevice() = default;
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;
  virtual ~BlockDevice() = default;

  virtual uint64_t size() const = 0;

  // Fills `out` from `offset`; unallocated ranges read as zeros.
  // Requires offset + out.size() <= size(). Throws CorruptImage on bad
  // metadata and IoError if the host read fails; `out` is then unspecified.
  virtual void Read(uint64_t offset, std::span<std::byte> out) = 0;

  // The extent that holds byte `offset`, from there on, at most `max_length`
  // bytes of it (at least one). A device may end an extent early: the next one
  // can be of the same kind. Requires offset < size() and max_length > 0.
  // Throws as Read() does.
  virtual Extent ExtentAt(uint64_t offset, uint64_t max_length) = 0;
};

// Reads what the device has of the range; the rest, behind its end, is zeros.
// Throws as Read() does.
void ReadZeroPadded(BlockDevice& device, uint64_t offset,
                    std::span<std::byte> out);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_BLOCK_DEVICE_H_
