#ifndef PELLUCID_CRYPTO_AES_ROUND_KEYS_H_
#define PELLUCID_CRYPTO_AES_ROUND_KEYS_H_

#if defined(__x86_64__)

#include <emmintrin.h>

#include <cstddef>
#include <span>

namespace pellucid::crypto {

// The key schedule of AES (FIPS 197, section 5.2) for one direction, in the
// order in which AES-NI uses it: round[0] before the first round, round[rounds]
// with the last.
struct AesRoundKeys {
  static constexpr size_t kMaxRounds = 14;

  __m128i round[kMaxRounds + 1];
  size_t rounds;
};

// `key` has 16, 24 or 32 bytes. Both need CpuFeatures::aes_ni.
void ExpandEncryptionKey(std::span<const std::byte> key, AesRoundKeys& keys);

// What the equivalent inverse cipher (FIPS 197, section 5.3.5) needs.
void InvertRoundKeys(const AesRoundKeys& encryption, AesRoundKeys& decryption);

}  // namespace pellucid::crypto

#endif  // defined(__x86_64__)

#endif  // PELLUCID_CRYPTO_AES_ROUND_KEYS_H_
