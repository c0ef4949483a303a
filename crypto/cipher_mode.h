#ifndef PELLUCID_CRYPTO_CIPHER_MODE_H_
#define PELLUCID_CRYPTO_CIPHER_MODE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "crypto/sector_cipher.h"

namespace pellucid::crypto {

inline constexpr size_t kMaxSectorSize = 4096;
// The longest of any cipher; IVs are as long.
inline constexpr size_t kMaxBlockSize = 16;

// A block cipher in a mode of operation, with its keys. Each sector starts
// anew from an IV of one cipher block. Safe to call from many threads.
class CipherMode {
 public:
  virtual ~CipherMode() = default;

  virtual size_t block_size() const = 0;

  // `ivs` holds one IV for each sector of `in` and is used up. `in` and `out`
  // are of one size and the same bytes or do not overlap.
  virtual void Encrypt(std::span<std::byte> ivs, size_t sector_size,
                       std::span<const std::byte> in,
                       std::span<std::byte> out) const = 0;
  virtual void Decrypt(std::span<std::byte> ivs, size_t sector_size,
                       std::span<const std::byte> in,
                       std::span<std::byte> out) const = 0;
};

// Throws UnsupportedAlgorithm: cipher, mode, or a key length that the two do
// not take.
std::unique_ptr<CipherMode> MakeCipherMode(const CipherSpec& spec,
                                           std::span<const std::byte> key);

// Throws UnsupportedAlgorithm, naming the modes there are.
void RequireCipherMode(std::string_view name);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_CIPHER_MODE_H_
