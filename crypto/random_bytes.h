#ifndef PELLUCID_CRYPTO_RANDOM_BYTES_H_
#define PELLUCID_CRYPTO_RANDOM_BYTES_H_

#include <cstddef>
#include <span>

namespace pellucid::crypto {

// Fills `out` from getrandom(2), good enough for keys. Throws
// std::system_error. Safe to call from many threads.
void FillRandom(std::span<std::byte> out);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_RANDOM_BYTES_H_
