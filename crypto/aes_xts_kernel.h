#ifndef PELLUCID_CRYPTO_AES_XTS_KERNEL_H_
#define PELLUCID_CRYPTO_AES_XTS_KERNEL_H_

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "crypto/aes_kernels.h"
#include "crypto/aes_rounds.h"

// AES-XTS for one width of registers. To be included inside a target region
// (crypto/target_region.h), and with a Vector type of one's own, so that no
// function of it is shared with code for another instruction set.
//
// Besides what AesRounds asks for, Vector needs Load, Store, ShiftBlocksLeft
// and ShiftBlocksRight (by bytes), ShiftWordsLeft and ShiftWordsRight (64-bit
// words, by bits), Reduce and PowersOfX.

namespace pellucid::crypto {

template <class Vector>
class AesXtsKernel {
 public:
  template <AesDirection direction>
  static void Transform(const AesRequest& request) {
    const std::byte* in = request.in;
    std::byte* out = request.out;
    for (size_t done = 0; done < request.sectors; done += kTweaks) {
      alignas(64) std::byte tweaks[kTweaks * kBlockSize];
      const size_t count = std::min(kTweaks, request.sectors - done);
      EncryptTweaks(request.keys.tweak, request.ivs + done * kBlockSize, count,
                    tweaks);
      for (size_t i = 0; i < count; ++i) {
        TransformSector<direction>(request.keys, tweaks + i * kBlockSize,
                                   request.sector_size, in, out);
        in += request.sector_size;
        out += request.sector_size;
      }
    }
  }

 private:
  using Register = typename Vector::Register;

  static constexpr size_t kBlockSize = 16;
  static constexpr size_t kLanes = Vector::kLanes;
  // Registers in flight: as many as hide the latency of an AES round. A group
  // has at most 512 bytes, the smallest sector, so it never ends in another.
  static constexpr size_t kGroup = 8;
  static constexpr size_t kGroupSize = kGroup * sizeof(Register);
  static_assert(512 % kGroupSize == 0);
  // Sectors whose tweaks are encrypted together, for the same reason.
  static constexpr size_t kTweaks = 8;
  // How far ahead input is fetched: a page, because the processor's own
  // prefetching stops at the end of one.
  static constexpr size_t kPrefetchDistance = 4096;

  using Group = Register[kGroup];

  // Encrypts `count` IVs, at most kTweaks.
  [[gnu::always_inline]] static inline void EncryptTweaks(
      const AesRoundKeys& keys, const std::byte* ivs, size_t count,
      std::byte* tweaks) {
    constexpr size_t kRegisters = kTweaks / kLanes;
    const Register no_mask[kRegisters] = {};
    Register state[kRegisters];
    std::memset(tweaks, 0, kTweaks * kBlockSize);
    std::memcpy(tweaks, ivs, count * kBlockSize);
    for (size_t i = 0; i < kRegisters; ++i) {
      state[i] = Vector::Load(tweaks + i * sizeof(Register));
    }
    AesRounds<Vector>::template Transform<AesDirection::kEncrypt>(
        keys, no_mask, no_mask, state);
    for (size_t i = 0; i < kRegisters; ++i) {
      Vector::Store(tweaks + i * sizeof(Register), state[i]);
    }
  }

  // Every block times x^power, modulo x^128 + x^7 + x^2 + x + 1.
  template <int power>
  [[gnu::always_inline]] static inline Register MultiplyByPowerOfX(
      Register blocks) {
    static_assert(power > 0 && power <= 57, "for one step of reduction");
    if constexpr (power % 8 == 0) {
      constexpr int kBytes = power / 8;
      const Register overflow =
          Vector::template ShiftBlocksRight<16 - kBytes>(blocks);
      return Vector::Xor(Vector::template ShiftBlocksLeft<kBytes>(blocks),
                         Vector::template Reduce<0>(overflow));
    } else {
      const Register overflow =
          Vector::template ShiftWordsRight<64 - power>(blocks);
      return Vector::Xor3(Vector::template ShiftWordsLeft<power>(blocks),
                          Vector::template ShiftBlocksLeft<8>(overflow),
                          Vector::template Reduce<1>(overflow));
    }
  }

  // The masks of the first group: block n is masked by the tweak times x^n.
  [[gnu::always_inline]] static inline void FirstMasks(const std::byte* tweak,
                                                       Group& masks) {
    const __m128i block =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(tweak));
    masks[0] = Vector::PowersOfX(block);
    masks[1] = MultiplyByPowerOfX<kLanes>(masks[0]);
    for (size_t i = 2; i < 4; ++i) {
      masks[i] = MultiplyByPowerOfX<2 * kLanes>(masks[i - 2]);
    }
    for (size_t i = 4; i < 8; ++i) {
      masks[i] = MultiplyByPowerOfX<4 * kLanes>(masks[i - 4]);
    }
  }

  template <AesDirection direction>
  [[gnu::always_inline]] static inline void TransformSector(
      const AesModeKeys& keys, const std::byte* tweak, size_t sector_size,
      const std::byte* in, std::byte* out) {
    const AesRoundKeys& round_keys =
        direction == AesDirection::kEncrypt ? keys.encryption : keys.decryption;
    Group masks;
    FirstMasks(tweak, masks);
    for (size_t offset = 0;;) {
      Group state;
      for (size_t i = 0; i < kGroup; ++i) {
        state[i] = Vector::Load(in + offset + i * sizeof(Register));
      }
      Prefetch(in + offset + kPrefetchDistance);
      AesRounds<Vector>::template Transform<direction>(round_keys, masks, masks,
                                                       state);
      for (size_t i = 0; i < kGroup; ++i) {
        Vector::Store(out + offset + i * sizeof(Register), state[i]);
      }
      offset += kGroupSize;
      if (offset == sector_size) break;
      for (Register& mask : masks) {
        mask = MultiplyByPowerOfX<kGroup * kLanes>(mask);
      }
    }
  }

  // A group's worth of cache lines; they need not exist.
  [[gnu::always_inline]] static inline void Prefetch(const std::byte* from) {
    for (size_t offset = 0; offset < kGroupSize; offset += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(from) + offset, _MM_HINT_T0);
    }
  }
};

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_AES_XTS_KERNEL_H_
