#ifndef PELLUCID_CRYPTO_SECTOR_CIPHER_H_
#define PELLUCID_CRYPTO_SECTOR_CIPHER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace pellucid::crypto {

// How a volume is encrypted, in the words of its header.
struct CipherSpec {
  std::string cipher;   // aes, serpent, twofish, cast5, camellia, sm4, aria
  std::string mode;     // xts, cbc, ctr, ecb, lrw
  std::string iv;       // null, plain, plain64, plain64be, essiv, benbi, eboiv;
                        // empty with ecb
  std::string iv_hash;  // with essiv

  // As cryptsetup prints it: "aes-xts-plain64", "aes-cbc-essiv:sha256".
  std::string ToString() const;
};

// Takes a LUKS1 header's cipher-name ("aes") and cipher-mode
// ("cbc-essiv:sha256") apart. A hash after any other IV generator
// ("xts-plain64:sha256", which QEMU writes) means nothing and is dropped.
// Throws UnsupportedAlgorithm.
CipherSpec ParseCipherSpec(std::string_view cipher_name,
                           std::string_view cipher_mode);

// Encrypts whole sectors, each with an IV or tweak of its own.
// Sector numbers count units of 512 bytes whatever the sector size is, as
// dm-crypt does. Safe to call from many threads.
class SectorCipher {
 public:
  virtual ~SectorCipher() = default;

  // 512, 1024, 2048 or 4096.
  virtual size_t sector_size() const = 0;

  // `in` and `out` have one size, a multiple of sector_size(), and are the
  // same bytes or do not overlap. `first_sector` is the number of the first.
  virtual void Encrypt(uint64_t first_sector, std::span<const std::byte> in,
                       std::span<std::byte> out) const = 0;
  virtual void Decrypt(uint64_t first_sector, std::span<const std::byte> in,
                       std::span<std::byte> out) const = 0;
};

// The one factory of ciphers. Throws UnsupportedAlgorithm if the cipher, mode,
// IV generator or key length is not one of ours. The key is copied into locked
// memory or into expanded keys that are wiped.
std::unique_ptr<SectorCipher> MakeSectorCipher(const CipherSpec& spec,
                                               std::span<const std::byte> key,
                                               size_t sector_size = 512);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_SECTOR_CIPHER_H_
