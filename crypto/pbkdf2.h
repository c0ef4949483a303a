#ifndef PELLUCID_CRYPTO_PBKDF2_H_
#define PELLUCID_CRYPTO_PBKDF2_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace pellucid::crypto {

// PBKDF2 (RFC 8018, section 5.2) with HMAC over `hash`; fills all of `out`.
// The output blocks of a long key are derived in parallel. Throws
// UnsupportedAlgorithm for an unknown hash and std::invalid_argument when
// `iterations` is 0. Safe to call from many threads.
void Pbkdf2(std::string_view hash, std::span<const std::byte> passphrase,
            std::span<const std::byte> salt, uint32_t iterations,
            std::span<std::byte> out);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_PBKDF2_H_
