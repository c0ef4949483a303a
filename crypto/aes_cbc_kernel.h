#ifndef PELLUCID_CRYPTO_AES_CBC_KERNEL_H_
#define PELLUCID_CRYPTO_AES_CBC_KERNEL_H_

#include <cstddef>
#include <cstring>

#include "crypto/aes_kernels.h"
#include "crypto/aes_rounds.h"

namespace pellucid::crypto {

// AES-CBC (NIST SP 800-38A, section 6.2) for one width of registers; to be
// included as crypto/aes_xts_kernel.h is. Vector needs Load and Store besides
// what AesRounds asks for.
template <class Vector>
class AesCbcKernel {
 public:
  // A block cannot be encrypted before the one in front of it, but sectors can
  // be side by side. Only for registers of one block.
  static void Encrypt(const AesRequest& request) {
    static_assert(kLanes == 1);
    size_t sector = 0;
    for (; sector + 8 <= request.sectors; sector += 8) {
      EncryptSectors<8>(request, sector);
    }
    for (; sector + 4 <= request.sectors; sector += 4) {
      EncryptSectors<4>(request, sector);
    }
    for (; sector < request.sectors; ++sector) {
      EncryptSectors<1>(request, sector);
    }
  }

  static void Decrypt(const AesRequest& request) {
    for (size_t i = 0; i < request.sectors; ++i) {
      DecryptSector(request.keys.decryption, request.ivs + i * kBlockSize,
                    request.sector_size, request.in + i * request.sector_size,
                    request.out + i * request.sector_size);
    }
  }

 private:
  using Register = typename Vector::Register;

  static constexpr size_t kBlockSize = 16;
  static constexpr size_t kLanes = Vector::kLanes;
  // As in AesXtsKernel.
  static constexpr size_t kGroup = 8;
  static constexpr size_t kGroupSize = kGroup * sizeof(Register);
  static_assert(512 % kGroupSize == 0);

  template <size_t count>
  [[gnu::always_inline]] static inline void EncryptSectors(
      const AesRequest& request, size_t first) {
    const std::byte* in = request.in + first * request.sector_size;
    std::byte* out = request.out + first * request.sector_size;
    const Register nothing[count] = {};
    Register chain[count];
    for (size_t i = 0; i < count; ++i) {
      chain[i] = Vector::Load(request.ivs + (first + i) * kBlockSize);
    }
    for (size_t offset = 0; offset < request.sector_size;
         offset += kBlockSize) {
      Register plaintext[count];
      for (size_t i = 0; i < count; ++i) {
        plaintext[i] = Vector::Load(in + i * request.sector_size + offset);
      }
      AesRounds<Vector>::template Transform<AesDirection::kEncrypt>(
          request.keys.encryption, plaintext, nothing, chain);
      for (size_t i = 0; i < count; ++i) {
        Vector::Store(out + i * request.sector_size + offset, chain[i]);
      }
    }
  }

  // From the end, so that in place no ciphertext is lost that is still needed.
  [[gnu::always_inline]] static inline void DecryptSector(
      const AesRoundKeys& keys, const std::byte* iv, size_t sector_size,
      const std::byte* in, std::byte* out) {
    for (size_t offset = sector_size - kGroupSize; offset > 0;
         offset -= kGroupSize) {
      DecryptGroup(keys, in + offset, in + offset - kBlockSize, out + offset);
    }
    std::byte chain[kGroupSize];
    std::memcpy(chain, iv, kBlockSize);
    std::memcpy(chain + kBlockSize, in, kGroupSize - kBlockSize);
    DecryptGroup(keys, in, chain, out);
  }

  // `chain` holds what each block is XORed with.
  [[gnu::always_inline]] static inline void DecryptGroup(
      const AesRoundKeys& keys, const std::byte* in, const std::byte* chain,
      std::byte* out) {
    const Register nothing[kGroup] = {};
    Register state[kGroup];
    Register before[kGroup];
    for (size_t i = 0; i < kGroup; ++i) {
      state[i] = Vector::Load(in + i * sizeof(Register));
      before[i] = Vector::Load(chain + i * sizeof(Register));
    }
    AesRounds<Vector>::template Transform<AesDirection::kDecrypt>(
        keys, nothing, before, state);
    for (size_t i = 0; i < kGroup; ++i) {
      Vector::Store(out + i * sizeof(Register), state[i]);
    }
  }
};

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_AES_CBC_KERNEL_H_
