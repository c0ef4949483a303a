#ifndef PELLUCID_CRYPTO_ARGON2_H_
#define PELLUCID_CRYPTO_ARGON2_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace pellucid::crypto {

enum class Argon2Type { kI, kId };

// What one derivation costs.
struct Argon2Cost {
  uint32_t time = 0;        // Passes over the memory.
  uint32_t memory_kib = 0;  // At least 8 a lane.
  uint32_t lanes = 0;       // "cpus" in LUKS2; run on as many threads as there
                            // are cores.
};

// Argon2 version 1.3 (RFC 9106); fills all of `out`. Its memory is wiped.
// Throws std::invalid_argument if the cost is outside what the algorithm
// allows and std::bad_alloc if there is not as much memory. Safe to call from
// many threads.
void Argon2(Argon2Type type, std::span<const std::byte> passphrase,
            std::span<const std::byte> salt, const Argon2Cost& cost,
            std::span<std::byte> out);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_ARGON2_H_
