#include "engine/luks/luks_device.h"

#include <algorithm>
#include <utility>

#include "engine/sector_pieces.h"

namespace pellucid::luks {

LuksDevice::LuksDevice(std::unique_ptr<BlockDevice> payload,
                       uint64_t payload_offset, uint64_t length,
                       std::unique_ptr<crypto::SectorCipher> cipher)
    : payload_(std::move(payload)),
      payload_offset_(payload_offset),
      length_(length),
      cipher_(std::move(cipher)) {}

void LuksDevice::Read(uint64_t offset, std::span<std::byte> out) {
  ReadInSectors(offset, out, cipher_->sector_size(),
                [&](uint64_t at, std::span<std::byte> sectors) {
                  payload_->Read(payload_offset_ + at, sectors);
                  // Counted in 512-byte units whatever the sector size is.
                  cipher_->Decrypt(at / 512, sectors, sectors);
                });
}

Extent LuksDevice::ExtentAt(uint64_t offset, uint64_t max_length) {
  return {.length = std::min(max_length, length_ - offset), .is_hole = false};
}

}  // namespace pellucid::luks
