#ifndef PELLUCID_CRYPTO_AES_XTS_PATHS_H_
#define PELLUCID_CRYPTO_AES_XTS_PATHS_H_

#if defined(__x86_64__)

#include <cstddef>
#include <span>

#include "crypto/aes_round_keys.h"

// Inside AES-XTS: what its paths have in common, and their entry points.

namespace pellucid::crypto {

struct AesXtsKeys {
  AesRoundKeys encryption;
  AesRoundKeys decryption;
  AesRoundKeys tweak;
};

// `sectors` sectors of `sector_size` bytes, a multiple of 512, with as many
// IVs of 16 bytes.
struct AesXtsRequest {
  const AesXtsKeys& keys;
  const std::byte* ivs;
  size_t sectors;
  size_t sector_size;
  const std::byte* in;
  std::byte* out;
};

struct AesXtsFunctions {
  void (*encrypt)(const AesXtsRequest& request);
  void (*decrypt)(const AesXtsRequest& request);
};

// Each needs the CpuFeatures of its name.
extern const AesXtsFunctions kAesXtsAesNi;
extern const AesXtsFunctions kAesXtsVaes256;
extern const AesXtsFunctions kAesXtsVaes512;

}  // namespace pellucid::crypto

#endif  // defined(__x86_64__)

#endif  // PELLUCID_CRYPTO_AES_XTS_PATHS_H_
