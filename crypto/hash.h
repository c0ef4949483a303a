#ifndef PELLUCID_CRYPTO_HASH_H_
#define PELLUCID_CRYPTO_HASH_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

namespace pellucid::crypto {

// A running hash. Not synchronised.
class Hasher {
 public:
  virtual ~Hasher() = default;
  virtual size_t digest_size() const = 0;
  virtual void Update(std::span<const std::byte> data) = 0;
  // Writes the digest (digest.size() == digest_size()) and starts over.
  virtual void Final(std::span<std::byte> digest) = 0;
};

// `name` as LUKS headers spell it, in any case: md5, sha1, sha224 ... sha512,
// sha3-224 ... sha3-512, ripemd160 (also rmd160), whirlpool, blake2b-512,
// blake2s-256, sm3. Throws UnsupportedAlgorithm.
std::unique_ptr<Hasher> MakeHasher(std::string_view name);

// Digest length in bytes. Throws UnsupportedAlgorithm.
size_t DigestSize(std::string_view name);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_HASH_H_
