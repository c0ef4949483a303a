#include "crypto/nist_modes.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "crypto/block_cipher.h"
#include "crypto/byte_order.h"

namespace pellucid::crypto {
namespace {

// Calls transform_sector(iv, in, out) for each sector.
template <class TransformSector>
void ForEachSector(std::span<const std::byte> ivs, size_t sector_size,
                   std::span<const std::byte> in, std::span<std::byte> out,
                   TransformSector transform_sector) {
  const size_t sectors = in.size() / sector_size;
  const size_t iv_size = sectors == 0 ? 0 : ivs.size() / sectors;
  for (size_t i = 0; i < sectors; ++i) {
    transform_sector(ivs.subspan(i * iv_size, iv_size),
                     in.subspan(i * sector_size, sector_size),
                     out.subspan(i * sector_size, sector_size));
  }
}

// NIST SP 800-38A, section 6.1. Takes no notice of the IVs.
class EcbMode : public CipherMode {
 public:
  explicit EcbMode(BlockCipher cipher) : cipher_(std::move(cipher)) {}

  size_t block_size() const override { return cipher_.block_size(); }

  void Encrypt(std::span<std::byte>, size_t, std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    cipher_.Encryption().Process(in, out);
  }

  void Decrypt(std::span<std::byte>, size_t, std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    cipher_.Decryption().Process(in, out);
  }

 private:
  BlockCipher cipher_;
};

// NIST SP 800-38A, section 6.2.
class CbcMode : public CipherMode {
 public:
  explicit CbcMode(BlockCipher cipher) : cipher_(std::move(cipher)) {}

  size_t block_size() const override { return cipher_.block_size(); }

  void Encrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    const BlockTransform encryption = cipher_.Encryption();
    ForEachSector(ivs, sector_size, in, out,
                  [&](auto iv, auto sector_in, auto sector_out) {
                    encryption.ChainForward(iv, sector_in, sector_out);
                  });
  }

  void Decrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    const BlockTransform decryption = cipher_.Decryption();
    ForEachSector(ivs, sector_size, in, out,
                  [&](auto iv, auto sector_in, auto sector_out) {
                    decryption.ChainBackward(iv, sector_in, sector_out);
                  });
  }

 private:
  BlockCipher cipher_;
};

// NIST SP 800-38A, section 6.5. The IV is the first counter, a big-endian
// integer as long as a block.
class CtrMode : public CipherMode {
 public:
  explicit CtrMode(BlockCipher cipher) : cipher_(std::move(cipher)) {}

  size_t block_size() const override { return cipher_.block_size(); }

  void Encrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    const BlockTransform encryption = cipher_.Encryption();
    std::array<std::byte, kMaxSectorSize> buffer;
    const std::span<std::byte> counters(buffer.data(), sector_size);
    ForEachSector(ivs, sector_size, in, out,
                  [&](auto iv, auto sector_in, auto sector_out) {
                    FillCounters(iv, counters);
                    encryption.ProcessAndXor(counters, sector_in, sector_out);
                  });
  }

  void Decrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    Encrypt(ivs, sector_size, in, out);
  }

 private:
  static void FillCounters(std::span<const std::byte> first,
                           std::span<std::byte> counters) {
    const size_t size = first.size();
    uint64_t low = LoadBigEndian<uint64_t>(first.last(8));
    // With blocks of 8 bytes there is no more than `low`.
    uint64_t high = LoadBigEndian<uint64_t>(first);
    for (size_t i = 0; i < counters.size(); i += size) {
      const std::span<std::byte> counter = counters.subspan(i, size);
      std::ranges::copy(BigEndian(high), counter.begin());
      std::ranges::copy(BigEndian(low), counter.last(8).begin());
      if (++low == 0) ++high;
    }
  }

  BlockCipher cipher_;
};

}  // namespace

std::unique_ptr<CipherMode> MakeEcbMode(std::string_view cipher,
                                        std::span<const std::byte> key) {
  return std::make_unique<EcbMode>(BlockCipher(cipher, key));
}

std::unique_ptr<CipherMode> MakeCbcMode(std::string_view cipher,
                                        std::span<const std::byte> key) {
  return std::make_unique<CbcMode>(BlockCipher(cipher, key));
}

std::unique_ptr<CipherMode> MakeCtrMode(std::string_view cipher,
                                        std::span<const std::byte> key) {
  return std::make_unique<CtrMode>(BlockCipher(cipher, key));
}

}  // namespace pellucid::crypto
