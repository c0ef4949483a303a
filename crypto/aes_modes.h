#ifndef PELLUCID_CRYPTO_AES_MODES_H_
#define PELLUCID_CRYPTO_AES_MODES_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "crypto/cipher_mode.h"

namespace pellucid::crypto {

// AES in XTS and CBC decides how fast an encrypted volume is, so these have
// code of their own beside the one through Crypto++. All give the same bytes.
enum class AesPath {
  kPortable,  // Crypto++.
  kAesNi,     // 128-bit registers, one block in each.
  kVaes256,   // Two blocks in each.
  kVaes512,   // Four blocks in each.
};

std::string_view ToString(AesPath path);

// Those that this processor can run, the fastest last.
std::vector<AesPath> AvailableAesPaths();

// In what follows `path` must be available. The expanded keys of all but the
// portable path are in locked memory. Both throw std::invalid_argument for a
// key of another length.

// XTS (IEEE Std 1619-2007). `key` has 32, 48 or 64 bytes: the data key, then
// the tweak key.
std::unique_ptr<CipherMode> MakeAesXtsMode(std::span<const std::byte> key,
                                           AesPath path);

// CBC (NIST SP 800-38A, section 6.2). `key` has 16, 24 or 32 bytes.
std::unique_ptr<CipherMode> MakeAesCbcMode(std::span<const std::byte> key,
                                           AesPath path);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_AES_MODES_H_
