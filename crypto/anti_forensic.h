#ifndef PELLUCID_CRYPTO_ANTI_FORENSIC_H_
#define PELLUCID_CRYPTO_ANTI_FORENSIC_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "crypto/secret_bytes.h"

namespace pellucid::crypto {

// LUKS anti-forensic splitter (LUKS1 On-Disk Format, section 2.4): `stripes`
// pieces of `key_size` bytes, all of which are needed to get the key back.

// Recovers the key from split.size() == stripes * key_size bytes.
// Throws UnsupportedAlgorithm and std::invalid_argument (sizes that disagree).
SecretBytes AntiForensicMerge(std::string_view hash,
                              std::span<const std::byte> split,
                              uint32_t stripes);

// The inverse, with stripes - 1 pieces of fresh random bytes from getrandom(2).
SecretBytes AntiForensicSplit(std::string_view hash,
                              std::span<const std::byte> key, uint32_t stripes);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_ANTI_FORENSIC_H_
