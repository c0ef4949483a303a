#include "crypto/sector_cipher.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "crypto/cipher_mode.h"
#include "crypto/iv_generator.h"
#include "crypto/stack_wipe.h"
#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {
namespace {

void RequireWholeSectors(size_t in_size, size_t out_size, size_t sector_size) {
  if (in_size != out_size || in_size % sector_size != 0) {
    throw std::invalid_argument(
        fmt::format("{} bytes to {} bytes are not whole {}-byte sectors",
                    in_size, out_size, sector_size));
  }
}

// Any IV generator with any mode, through Crypto++.
class ComposedSectorCipher : public SectorCipher {
 public:
  ComposedSectorCipher(std::unique_ptr<CipherMode> mode,
                       std::unique_ptr<IvGenerator> ivs, size_t sector_size)
      : mode_(std::move(mode)),
        ivs_(std::move(ivs)),
        sector_size_(sector_size) {}

  size_t sector_size() const override { return sector_size_; }

  void Encrypt(uint64_t first_sector, std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    ForEachBatch(first_sector, in, out,
                 [&](auto ivs, auto batch_in, auto batch_out) {
                   mode_->Encrypt(ivs, sector_size_, batch_in, batch_out);
                 });
  }

  void Decrypt(uint64_t first_sector, std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    ForEachBatch(first_sector, in, out,
                 [&](auto ivs, auto batch_in, auto batch_out) {
                   mode_->Decrypt(ivs, sector_size_, batch_in, batch_out);
                 });
  }

 private:
  static constexpr size_t kSectorsInBatch = 128;

  // Calls transform(ivs, in, out) for as many sectors as the IVs on the stack
  // reach.
  template <class Transform>
  void ForEachBatch(uint64_t first_sector, std::span<const std::byte> in,
                    std::span<std::byte> out, Transform transform) const {
    RequireWholeSectors(in.size(), out.size(), sector_size_);
    WipeStackAtThreadEnd();
    std::array<std::byte, kSectorsInBatch * kMaxBlockSize> iv_buffer;
    const uint64_t sector_step = sector_size_ / 512;
    while (!in.empty()) {
      const size_t size = std::min(in.size(), kSectorsInBatch * sector_size_);
      const size_t sectors = size / sector_size_;
      const std::span<std::byte> ivs(iv_buffer.data(),
                                     sectors * mode_->block_size());
      if (ivs_) ivs_->Generate(first_sector, sector_step, ivs);
      transform(ivs, in.first(size), out.first(size));
      in = in.subspan(size);
      out = out.subspan(size);
      first_sector += sectors * sector_step;
    }
  }

  std::unique_ptr<CipherMode> mode_;
  std::unique_ptr<IvGenerator> ivs_;  // Null with ECB.
  size_t sector_size_;
};

}  // namespace

std::unique_ptr<SectorCipher> MakeSectorCipher(const CipherSpec& spec,
                                               std::span<const std::byte> key,
                                               size_t sector_size) {
  if (sector_size != 512 && sector_size != 1024 && sector_size != 2048 &&
      sector_size != 4096) {
    throw UnsupportedAlgorithm(
        fmt::format("{}: sectors of {} bytes are not supported "
                    "(supported: 512, 1024, 2048, 4096)",
                    spec.ToString(), sector_size));
  }
  WipeStackAtThreadEnd();
  std::unique_ptr<CipherMode> mode = MakeCipherMode(spec, key);
  std::unique_ptr<IvGenerator> ivs;
  if (spec.mode != "ecb") {
    ivs = MakeIvGenerator(spec, key, mode->block_size(), sector_size);
  }
  return std::make_unique<ComposedSectorCipher>(std::move(mode), std::move(ivs),
                                                sector_size);
}

}  // namespace pellucid::crypto
