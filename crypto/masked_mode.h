#ifndef PELLUCID_CRYPTO_MASKED_MODE_H_
#define PELLUCID_CRYPTO_MASKED_MODE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "crypto/cipher_mode.h"

namespace pellucid::crypto {

// XTS and LRW: every block is XORed with a mask of its own before and after
// the cipher. Both are defined on blocks of 16 bytes.
inline constexpr size_t kMaskedBlockSize = 16;

// XTS (IEEE Std 1619-2007, section 5): the key is the data key followed by
// the tweak key. Any cipher, by way of Crypto++.
std::unique_ptr<CipherMode> MakeXtsMode(std::string_view cipher,
                                        std::span<const std::byte> key);

// LRW (the draft before IEEE 1619, as in Linux crypto/lrw.c): the cipher's key
// is followed by a tweak key of 16 bytes.
std::unique_ptr<CipherMode> MakeLrwMode(std::string_view cipher,
                                        std::span<const std::byte> key);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_MASKED_MODE_H_
