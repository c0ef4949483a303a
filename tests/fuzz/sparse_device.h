#ifndef PELLUCID_TESTS_FUZZ_SPARSE_DEVICE_H_
#define PELLUCID_TESTS_FUZZ_SPARSE_DEVICE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "engine/writable_device.h"

namespace pellucid {

// A host file of which only the sectors that are not zeros exist, so that an
// image of many megabytes is a small input to a fuzzer:
//
//   bytes 0-5    size of the file in bytes, little endian (below kMaxBytes)
//   bytes 6-7    for the target, see ForTarget()
//   then, as often as there is something left:
//     4 bytes    number of a sector, little endian
//     512 bytes  its content; what is missing at the end is zeros
//
// tests/fuzz/make_seeds writes this. A write that would make more than
// kMaxStored bytes exist throws IoError(ENOSPC), as a full disk does. An access
// that breaks the promises of BlockDevice throws std::logic_error. Not
// synchronised.
class SparseDevice : public ResizableDevice {
 public:
  static constexpr uint64_t kMaxBytes = uint64_t{1} << 44;
  static constexpr size_t kMaxStored = 64 << 20;

  explicit SparseDevice(std::span<const uint8_t> input);
  // Bits with which an input chooses what a target does with the file.
  static uint16_t ForTarget(std::span<const uint8_t> input);
  // A file that has the same content and then one of its own.
  std::unique_ptr<SparseDevice> Copy() const;

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;
  void Write(uint64_t offset, std::span<const std::byte> in) override;
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override;
  void Flush() override {}
  void Resize(uint64_t size) override;

 private:
  static constexpr size_t kSector = 512;
  using Sector = std::array<std::byte, kSector>;

  SparseDevice() = default;
  void CheckInside(uint64_t offset, uint64_t length) const;
  Sector& SectorToWrite(uint64_t number);

  uint64_t size_ = 0;
  std::map<uint64_t, Sector> sectors_;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_FUZZ_SPARSE_DEVICE_H_
