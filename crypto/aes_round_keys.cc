#include "crypto/aes_round_keys.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace pellucid::crypto {
namespace {

// SubWord() and RotWord(SubWord()), by the instruction's own S-box: a table
// would tell key bytes to whoever watches the cache.
struct SubstitutedWord {
  uint32_t plain;
  uint32_t rotated;
};

__attribute__((target("aes"))) SubstitutedWord Substitute(uint32_t word) {
  const __m128i substituted =
      _mm_aeskeygenassist_si128(_mm_set1_epi32(static_cast<int>(word)), 0);
  const auto both = static_cast<uint64_t>(_mm_cvtsi128_si64(substituted));
  return {static_cast<uint32_t>(both), static_cast<uint32_t>(both >> 32)};
}

// {02} times `a` in AES's field.
uint32_t NextRoundConstant(uint32_t a) {
  return ((a << 1) ^ ((a >> 7) * 0x1b)) & 0xff;
}

}  // namespace

void ExpandEncryptionKey(std::span<const std::byte> key, AesRoundKeys& keys) {
  const size_t key_words = key.size() / 4;
  keys.rounds = key_words + 6;
  // The schedule is a run of words through all round keys.
  auto* const schedule = reinterpret_cast<std::byte*>(keys.round);
  std::memcpy(schedule, key.data(), key.size());
  uint32_t round_constant = 1;
  uint32_t word;
  std::memcpy(&word, schedule + key.size() - 4, 4);
  for (size_t i = key_words; i < 4 * (keys.rounds + 1); ++i) {
    if (i % key_words == 0) {
      word = Substitute(word).rotated ^ round_constant;
      round_constant = NextRoundConstant(round_constant);
    } else if (key_words > 6 && i % key_words == 4) {
      word = Substitute(word).plain;
    }
    uint32_t earlier;
    std::memcpy(&earlier, schedule + 4 * (i - key_words), 4);
    word ^= earlier;
    std::memcpy(schedule + 4 * i, &word, 4);
  }
}

__attribute__((target("aes"))) void InvertRoundKeys(
    const AesRoundKeys& encryption, AesRoundKeys& decryption) {
  const size_t rounds = encryption.rounds;
  decryption.rounds = rounds;
  decryption.round[0] = encryption.round[rounds];
  for (size_t i = 1; i < rounds; ++i) {
    decryption.round[i] = _mm_aesimc_si128(encryption.round[rounds - i]);
  }
  decryption.round[rounds] = encryption.round[0];
}

}  // namespace pellucid::crypto

#endif  // defined(__x86_64__)
