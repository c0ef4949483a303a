#ifndef PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_
#define PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_

#include <memory>
#include <vector>

#include "crypto/sector_cipher.h"
#include "engine/block_device.h"
#include "engine/luks/volume_header.h"

namespace pellucid::luks {

// The plaintext of a LUKS payload: its segments, one behind the other. Sectors
// are tweaked with their number within the segment. Whatever the payload lacks
// (a hole, an unallocated cluster) is zeros of ciphertext, which decrypt to
// noise: there are no holes here. Takes no lock and allocates nothing.
class LuksDevice : public BlockDevice {
 public:
  // `volume_key` opens every encrypted segment. CheckPayload() has accepted the
  // payload. Throws crypto::UnsupportedAlgorithm.
  LuksDevice(std::unique_ptr<BlockDevice> payload, const VolumeHeader& header,
             std::span<const std::byte> volume_key);

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;

 private:
  struct Run {
    uint64_t begin;  // In the plaintext.
    uint64_t end;
    uint64_t payload_offset;  // Of `begin`.
    uint64_t iv_tweak;
    std::unique_ptr<crypto::SectorCipher> cipher;  // Null if linear.
  };

  const Run& RunAt(uint64_t offset) const;
  void ReadRun(const Run& run, uint64_t offset, std::span<std::byte> out);

  const std::unique_ptr<BlockDevice> payload_;
  std::vector<Run> runs_;
  uint64_t size_ = 0;
};

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_
