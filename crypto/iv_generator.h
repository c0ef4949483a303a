#ifndef PELLUCID_CRYPTO_IV_GENERATOR_H_
#define PELLUCID_CRYPTO_IV_GENERATOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "crypto/sector_cipher.h"

namespace pellucid::crypto {

// Turns sector numbers into the IVs of a cipher mode, the way dm-crypt does
// (Linux Documentation/admin-guide/device-mapper/dm-crypt.rst; the generators
// are described at the head of drivers/md/dm-crypt.c). Safe to call from many
// threads.
class IvGenerator {
 public:
  virtual ~IvGenerator() = default;

  // Fills `ivs` with ivs.size() / block size IVs: for the sectors numbered
  // first_sector, first_sector + sector_step, ...
  virtual void Generate(uint64_t first_sector, uint64_t sector_step,
                        std::span<std::byte> ivs) const = 0;
};

// The generator that `spec` names, for a cipher with blocks of `block_size`
// bytes. Throws UnsupportedAlgorithm, also if the digest of an ESSIV hash is
// not as long as a key of the cipher.
std::unique_ptr<IvGenerator> MakeIvGenerator(const CipherSpec& spec,
                                             std::span<const std::byte> key,
                                             size_t block_size,
                                             size_t sector_size);

// Throws UnsupportedAlgorithm, naming the generators there are.
void RequireIvGenerator(std::string_view name);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_IV_GENERATOR_H_
