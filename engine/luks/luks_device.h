#ifndef PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_
#define PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_

#include <memory>

#include "crypto/sector_cipher.h"
#include "engine/block_device.h"

namespace pellucid::luks {

// The plaintext of a LUKS payload. Sectors are tweaked with their number
// within the payload. Whatever the payload lacks (a hole, an unallocated
// cluster) is zeros of ciphertext, which decrypt to noise: there are no holes
// here. Takes no lock and allocates nothing.
class LuksDevice : public BlockDevice {
 public:
  // Shows `length` bytes, a multiple of the cipher's sector size, from
  // `payload_offset` of `payload` on.
  LuksDevice(std::unique_ptr<BlockDevice> payload, uint64_t payload_offset,
             uint64_t length, std::unique_ptr<crypto::SectorCipher> cipher);

  uint64_t size() const override { return length_; }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;

 private:
  const std::unique_ptr<BlockDevice> payload_;
  const uint64_t payload_offset_;
  const uint64_t length_;
  const std::unique_ptr<crypto::SectorCipher> cipher_;
};

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_
