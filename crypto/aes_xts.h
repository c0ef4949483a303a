#ifndef PELLUCID_CRYPTO_AES_XTS_H_
#define PELLUCID_CRYPTO_AES_XTS_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "crypto/cipher_mode.h"

namespace pellucid::crypto {

// AES-XTS (IEEE Std 1619-2007) decides how fast an encrypted volume is, so it
// has code of its own beside the one through Crypto++. All give the same bytes.
enum class AesXtsPath {
  kPortable,  // Crypto++.
  kAesNi,     // 128-bit registers, one block in each.
  kVaes256,   // Two blocks in each.
  kVaes512,   // Four blocks in each.
};

std::string_view ToString(AesXtsPath path);

// Those that this processor can run, the fastest last.
std::vector<AesXtsPath> AvailableAesXtsPaths();

// `key` has 32, 48 or 64 bytes: the data key, then the tweak key. The expanded
// keys are in locked memory. `path` must be available.
std::unique_ptr<CipherMode> MakeAesXtsMode(std::span<const std::byte> key,
                                           AesXtsPath path);

// By the fastest path there is.
std::unique_ptr<CipherMode> MakeAesXtsMode(std::span<const std::byte> key);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_AES_XTS_H_
