#ifndef PELLUCID_CRYPTO_AES_ROUNDS_H_
#define PELLUCID_CRYPTO_AES_ROUNDS_H_

#include <cstddef>

#include "crypto/aes_round_keys.h"

namespace pellucid::crypto {

enum class AesDirection { kEncrypt, kDecrypt };

// AES on several registers at a time (a mode's code for one instruction set
// takes it into its target region, see crypto/target_region.h).
//
// A Vector holds kLanes blocks side by side in its Register. Here it needs
// Broadcast (a block into every lane), Xor, Xor3 and the four AES rounds.
template <class Vector>
class AesRounds {
 public:
  using Register = typename Vector::Register;

  // AES of state ^ before, and then XORed with `after`; the two join the first
  // and the last round key.
  template <AesDirection direction, size_t count>
  [[gnu::always_inline]] static inline void Transform(
      const AesRoundKeys& keys, const Register (&before)[count],
      const Register (&after)[count], Register (&state)[count]) {
    const Register first_key = Vector::Broadcast(keys.round[0]);
    for (size_t i = 0; i < count; ++i) {
      state[i] = Vector::Xor3(state[i], before[i], first_key);
    }
    for (size_t round = 1; round < keys.rounds; ++round) {
      const Register key = Vector::Broadcast(keys.round[round]);
      for (size_t i = 0; i < count; ++i) {
        state[i] = Round<direction>(state[i], key);
      }
    }
    const Register last_key = Vector::Broadcast(keys.round[keys.rounds]);
    for (size_t i = 0; i < count; ++i) {
      state[i] =
          LastRound<direction>(state[i], Vector::Xor(last_key, after[i]));
    }
  }

 private:
  template <AesDirection direction>
  [[gnu::always_inline]] static inline Register Round(Register state,
                                                      Register key) {
    if constexpr (direction == AesDirection::kEncrypt) {
      return Vector::EncryptRound(state, key);
    } else {
      return Vector::DecryptRound(state, key);
    }
  }

  template <AesDirection direction>
  [[gnu::always_inline]] static inline Register LastRound(Register state,
                                                          Register key) {
    if constexpr (direction == AesDirection::kEncrypt) {
      return Vector::EncryptLastRound(state, key);
    } else {
      return Vector::DecryptLastRound(state, key);
    }
  }
};

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_AES_ROUNDS_H_
