#ifndef PELLUCID_CRYPTO_NIST_MODES_H_
#define PELLUCID_CRYPTO_NIST_MODES_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "crypto/cipher_mode.h"

namespace pellucid::crypto {

// The modes of NIST SP 800-38A, for any cipher, by way of Crypto++. ECB takes
// no notice of the IVs; the IV of CTR is the first counter, a big-endian
// integer as long as a block.
std::unique_ptr<CipherMode> MakeEcbMode(std::string_view cipher,
                                        std::span<const std::byte> key);
std::unique_ptr<CipherMode> MakeCbcMode(std::string_view cipher,
                                        std::span<const std::byte> key);
std::unique_ptr<CipherMode> MakeCtrMode(std::string_view cipher,
                                        std::span<const std::byte> key);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_NIST_MODES_H_
