#include "crypto/masked_mode.h"

#include <cryptopp/secblock.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <utility>

#include "crypto/block_cipher.h"
#include "crypto/byte_order.h"

namespace pellucid::crypto {
namespace {

// A polynomial over GF(2) of degree below 128; bit 0 of `low` is x^0.
struct Gf128 {
  uint64_t low;
  uint64_t high;
};

Gf128 operator^(Gf128 a, Gf128 b) { return {a.low ^ b.low, a.high ^ b.high}; }

// The product with x, modulo x^128 + x^7 + x^2 + x + 1; without a branch on the
// value, which is secret.
Gf128 TimesX(Gf128 a) {
  const uint64_t carry = a.high >> 63;
  return {a.low << 1 ^ (0x87 & (0 - carry)), a.high << 1 | a.low >> 63};
}

// XTS reads a polynomial from the first byte on, LRW from the last.
Gf128 LoadLittleEndian128(std::span<const std::byte> block) {
  return {LoadLittleEndian<uint64_t>(block),
          LoadLittleEndian<uint64_t>(block.subspan(8))};
}

void StoreLittleEndian128(Gf128 a, std::span<std::byte> block) {
  std::ranges::copy(LittleEndian(a.low), block.begin());
  std::ranges::copy(LittleEndian(a.high), block.begin() + 8);
}

Gf128 LoadBigEndian128(std::span<const std::byte> block) {
  return {LoadBigEndian<uint64_t>(block.subspan(8)),
          LoadBigEndian<uint64_t>(block)};
}

void StoreBigEndian128(Gf128 a, std::span<std::byte> block) {
  std::ranges::copy(BigEndian(a.high), block.begin());
  std::ranges::copy(BigEndian(a.low), block.begin() + 8);
}

// Where the masks of a sector come from.
class MaskSource {
 public:
  virtual ~MaskSource() = default;
  // Turns IVs into what FillMasks() starts from, for many sectors at a time.
  virtual void Prepare(std::span<std::byte> ivs) const = 0;
  virtual void FillMasks(std::span<const std::byte> start,
                         std::span<std::byte> masks) const = 0;
};

// The encrypted IV times 1, x, x^2 ...
class XtsMasks : public MaskSource {
 public:
  explicit XtsMasks(BlockCipher tweak_cipher)
      : tweak_cipher_(std::move(tweak_cipher)) {}

  void Prepare(std::span<std::byte> ivs) const override {
    tweak_cipher_.Encryption().Process(ivs, ivs);
  }

  void FillMasks(std::span<const std::byte> start,
                 std::span<std::byte> masks) const override {
    Gf128 mask = LoadLittleEndian128(start);
    for (size_t i = 0; i < masks.size(); i += kMaskedBlockSize) {
      StoreLittleEndian128(mask, masks.subspan(i, kMaskedBlockSize));
      mask = TimesX(mask);
    }
  }

 private:
  BlockCipher tweak_cipher_;
};

// The tweak key times I, I + 1, I + 2 ... where I is the IV.
class LrwMasks : public MaskSource {
 public:
  explicit LrwMasks(std::span<const std::byte> tweak_key) {
    Gf128 power = LoadBigEndian128(tweak_key);
    for (Gf128& p : powers_) {
      p = power;
      power = TimesX(power);
    }
    Gf128 sum = {0, 0};
    for (size_t i = 0; i < powers_.size(); ++i) {
      increments_[i] = sum = sum ^ powers_[i];
    }
  }

  void Prepare(std::span<std::byte>) const override {}

  void FillMasks(std::span<const std::byte> start,
                 std::span<std::byte> masks) const override {
    Gf128 index = LoadBigEndian128(start);
    Gf128 mask = Product(index);
    for (size_t i = 0; i < masks.size(); i += kMaskedBlockSize) {
      StoreBigEndian128(mask, masks.subspan(i, kMaskedBlockSize));
      mask = mask ^ increments_[TrailingOnes(index)];
      if (++index.low == 0) ++index.high;
    }
  }

 private:
  using Table = CryptoPP::FixedSizeSecBlock<Gf128, 128>;

  // The index is public; only the powers are secret.
  Gf128 Product(Gf128 index) const {
    Gf128 product = {0, 0};
    for (; index.low != 0; index.low &= index.low - 1) {
      product = product ^ Power(std::countr_zero(index.low));
    }
    for (; index.high != 0; index.high &= index.high - 1) {
      product = product ^ Power(64 + std::countr_zero(index.high));
    }
    return product;
  }

  Gf128 Power(int exponent) const {
    return powers_[static_cast<size_t>(exponent)];
  }

  // From I to I + 1 all bits change up to and with the lowest that is 0.
  static size_t TrailingOnes(Gf128 index) {
    const int low = std::countr_one(index.low);
    const int ones = low < 64 ? low : 64 + std::countr_one(index.high);
    return static_cast<size_t>(std::min(ones, 127));
  }

  Table powers_;      // The key times x^i.
  Table increments_;  // The key times x^i + ... + x + 1.
};

class MaskedMode : public CipherMode {
 public:
  MaskedMode(BlockCipher cipher, std::unique_ptr<MaskSource> masks)
      : cipher_(std::move(cipher)), masks_(std::move(masks)) {}

  size_t block_size() const override { return kMaskedBlockSize; }

  void Encrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    Transform(cipher_.Encryption(), ivs, sector_size, in, out);
  }

  void Decrypt(std::span<std::byte> ivs, size_t sector_size,
               std::span<const std::byte> in,
               std::span<std::byte> out) const override {
    Transform(cipher_.Decryption(), ivs, sector_size, in, out);
  }

 private:
  void Transform(const BlockTransform& transform, std::span<std::byte> ivs,
                 size_t sector_size, std::span<const std::byte> in,
                 std::span<std::byte> out) const {
    masks_->Prepare(ivs);
    std::array<std::byte, kMaxSectorSize> buffer;
    const std::span<std::byte> masks(buffer.data(), sector_size);
    for (size_t i = 0; i * sector_size < in.size(); ++i) {
      masks_->FillMasks(ivs.subspan(i * kMaskedBlockSize, kMaskedBlockSize),
                        masks);
      const auto sector_in = in.subspan(i * sector_size, sector_size);
      const auto sector_out = out.subspan(i * sector_size, sector_size);
      for (size_t j = 0; j < sector_size; ++j) {
        sector_out[j] = sector_in[j] ^ masks[j];
      }
      transform.ProcessAndXor(sector_out, masks, sector_out);
    }
  }

  BlockCipher cipher_;
  std::unique_ptr<MaskSource> masks_;
};

}  // namespace

std::unique_ptr<CipherMode> MakeXtsMode(std::string_view cipher,
                                        std::span<const std::byte> key) {
  const size_t half = key.size() / 2;
  return std::make_unique<MaskedMode>(
      BlockCipher(cipher, key.first(half)),
      std::make_unique<XtsMasks>(BlockCipher(cipher, key.last(half))));
}

std::unique_ptr<CipherMode> MakeLrwMode(std::string_view cipher,
                                        std::span<const std::byte> key) {
  return std::make_unique<MaskedMode>(
      BlockCipher(cipher, key.first(key.size() - kMaskedBlockSize)),
      std::make_unique<LrwMasks>(key.last(kMaskedBlockSize)));
}

}  // namespace pellucid::crypto
