#ifndef PELLUCID_CRYPTO_AES_KERNELS_H_
#define PELLUCID_CRYPTO_AES_KERNELS_H_

#if defined(__x86_64__)

#include <cstddef>

#include "crypto/aes_round_keys.h"

// Inside the AES modes: what is common to the code for each instruction set,
// and the entry points of that.

namespace pellucid::crypto {

struct AesModeKeys {
  AesRoundKeys encryption;
  AesRoundKeys decryption;
  AesRoundKeys tweak;  // Unused with CBC.
};

// `sectors` sectors of `sector_size` bytes, a multiple of 512, with as many
// IVs of 16 bytes.
struct AesRequest {
  const AesModeKeys& keys;
  const std::byte* ivs;
  size_t sectors;
  size_t sector_size;
  const std::byte* in;
  std::byte* out;
};

using AesFunction = void (*)(const AesRequest& request);

struct AesKernels {
  AesFunction xts_encrypt;
  AesFunction xts_decrypt;
  AesFunction cbc_encrypt;
  AesFunction cbc_decrypt;
};

// The one way to encrypt in CBC: the blocks of several sectors would have to be
// gathered into a wider register.
void AesNiCbcEncrypt(const AesRequest& request);

// Each needs the CpuFeatures of its name.
extern const AesKernels kAesNiKernels;
extern const AesKernels kVaes256Kernels;
extern const AesKernels kVaes512Kernels;

}  // namespace pellucid::crypto

#endif  // defined(__x86_64__)

#endif  // PELLUCID_CRYPTO_AES_KERNELS_H_
