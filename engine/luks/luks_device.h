#ifndef PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_
#define PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "crypto/sector_cipher.h"
#include "engine/luks/volume_header.h"
#include "engine/writable_device.h"

namespace pellucid::luks {

// The plaintext of a LUKS payload: its segments, one behind the other. Sectors
// are tweaked with their number within the segment. Whatever the payload lacks
// (a hole, an unallocated cluster) is zeros of ciphertext, which decrypt to
// noise: there are no holes here, and zeros are stored like other data.
// Allocates nothing per request, and takes no lock unless it can be written.
class LuksDevice : public WritableDevice {
 public:
  // `volume_key` opens every encrypted segment. CheckPayload() has accepted the
  // payload. Throws crypto::UnsupportedAlgorithm.
  //
  // Over a payload that can only be read: Write(), WriteZeroes() and Flush()
  // must not be called.
  LuksDevice(std::unique_ptr<BlockDevice> payload, const VolumeHeader& header,
             std::span<const std::byte> volume_key);
  // Over a payload that can be written.
  LuksDevice(std::unique_ptr<WritableDevice> payload,
             const VolumeHeader& header, std::span<const std::byte> volume_key);

  // The plaintext of another payload of the same volume key, for reading, with
  // the ciphers that this device has: a key is not kept for that. Null if
  // `header`, whose CheckPayload() has accepted the payload, wants another
  // cipher.
  std::unique_ptr<LuksDevice> WithOtherPayload(
      std::unique_ptr<BlockDevice> payload, const VolumeHeader& header) const;

  // From now on `watch` sees every encrypted sector that is read, as it is
  // stored; `offset` is in the payload. Not while others use the device.
  using CiphertextWatch =
      std::function<void(uint64_t offset, std::span<const std::byte> sectors)>;
  void set_ciphertext_watch(CiphertextWatch watch) {
    ciphertext_watch_ = std::move(watch);
  }

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;
  void Write(uint64_t offset, std::span<const std::byte> in) override;
  // Frees no space in an encrypted segment, whatever `mode` is.
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override;
  void Flush() override;

 private:
  struct Run {
    uint64_t begin;  // In the plaintext.
    uint64_t end;
    uint64_t payload_offset;  // Of `begin`.
    uint64_t iv_tweak;
    std::optional<Encryption> encryption;
    // Null if linear. Shared by the devices of one key.
    std::shared_ptr<crypto::SectorCipher> cipher;
  };
  struct alignas(64) RegionLock {
    std::shared_mutex mutex;
  };

  explicit LuksDevice(std::unique_ptr<BlockDevice> payload)
      : payload_(std::move(payload)) {}

  using Cipher = std::shared_ptr<crypto::SectorCipher>;
  void AddRun(const Segment& segment, Cipher cipher);
  void AddRuns(const VolumeHeader& header,
               std::span<const std::byte> volume_key);
  const Run& RunAt(uint64_t offset) const;
  // How much of [offset, offset + length) lies in the run and, if that is
  // encrypted, in one region.
  static uint64_t LengthInRegion(const Run& run, uint64_t offset,
                                 uint64_t length);
  // Of the region that holds the byte `in_run` of a run.
  std::shared_mutex& RegionMutex(uint64_t in_run);
  void ReadRun(const Run& run, uint64_t offset, std::span<std::byte> out);
  static void Decrypt(const Run& run, uint64_t in_run,
                      std::span<std::byte> sectors);
  // Encrypts and writes `length` bytes at `in_run`, zeros if `in` is null.
  // Requires them to lie in one region.
  void WriteInRegion(const Run& run, uint64_t in_run, const std::byte* in,
                     size_t length);

  // The ciphertext of a sector makes sense as a whole only. Whoever writes to a
  // region has its lock alone, and whoever reads there shares it, so that no
  // sector is ever seen half written, not even by who wants the bytes beside
  // those that change. It is held across the payload's I/O, which is what it is
  // for, but not across ciphers, except to change a cut sector: that has to
  // stay as it was read until it is written. Many small regions, rather than
  // one lock with aligned writes sharing it, let no slow read of a cut sector
  // stop other writes, and keep two aligned writes to one sector apart.
  static constexpr size_t kRegionLocks = 64;

  WritableDevice* const writable_payload_ = nullptr;  // payload_, or null.
  const std::unique_ptr<BlockDevice> payload_;
  std::vector<Run> runs_;
  uint64_t size_ = 0;
  CiphertextWatch ciphertext_watch_;  // May be empty.
  // Null if the payload is only read.
  std::unique_ptr<std::array<RegionLock, kRegionLocks>> region_locks_;
};

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LUKS_DEVICE_H_
