#ifndef PELLUCID_CRYPTO_HASH_LIST_H_
#define PELLUCID_CRYPTO_HASH_LIST_H_

#include <cryptopp/blake2.h>
#include <cryptopp/ripemd.h>
#include <cryptopp/sha.h>
#include <cryptopp/sha3.h>
#include <cryptopp/sm3.h>
#include <cryptopp/whrlpool.h>
#define CRYPTOPP_ENABLE_NAMESPACE_WEAK 1
#include <cryptopp/md5.h>
#undef CRYPTOPP_ENABLE_NAMESPACE_WEAK
#include <fmt/format.h>
#include <strings.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>

#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {

// One row of the table of hashes: a Crypto++ class, how many bytes of its
// digest are used, and a name.
template <class CryptoPpHash, size_t digest_size = CryptoPpHash::DIGESTSIZE>
struct HashEntry {
  using Hash = CryptoPpHash;
  static constexpr size_t kDigestSize = digest_size;
  static constexpr size_t kBlockSize = CryptoPpHash::BLOCKSIZE;

  std::string_view name;
};

// BLAKE2 takes the digest size as a parameter of the hash: a short digest is
// not the beginning of a long one.
template <class Blake2, unsigned digest_size>
class SizedBlake2 : public Blake2 {
 public:
  static constexpr size_t DIGESTSIZE = digest_size;
  SizedBlake2() : Blake2(digest_size) {}
  // Copied only: moving one would copy, and throw where it may not.
  SizedBlake2(const SizedBlake2&) = default;
  SizedBlake2& operator=(const SizedBlake2&) = default;
};

// Every hash there is, under each of its names (cryptsetup's, QEMU's and the
// kernel's).
inline constexpr auto kHashList = std::make_tuple(
    HashEntry<CryptoPP::Weak::MD5>{"md5"}, HashEntry<CryptoPP::SHA1>{"sha1"},
    HashEntry<CryptoPP::SHA224>{"sha224"},
    HashEntry<CryptoPP::SHA256>{"sha256"},
    HashEntry<CryptoPP::SHA384>{"sha384"},
    HashEntry<CryptoPP::SHA512>{"sha512"},
    HashEntry<CryptoPP::SHA3_224>{"sha3-224"},
    HashEntry<CryptoPP::SHA3_256>{"sha3-256"},
    HashEntry<CryptoPP::SHA3_384>{"sha3-384"},
    HashEntry<CryptoPP::SHA3_512>{"sha3-512"},
    HashEntry<CryptoPP::RIPEMD160>{"ripemd160"},
    HashEntry<CryptoPP::RIPEMD160>{"rmd160"},
    HashEntry<CryptoPP::Whirlpool>{"whirlpool"},
    HashEntry<CryptoPP::Whirlpool, 64>{"wp512"},
    HashEntry<CryptoPP::Whirlpool, 48>{"wp384"},
    HashEntry<CryptoPP::Whirlpool, 32>{"wp256"},
    HashEntry<SizedBlake2<CryptoPP::BLAKE2b, 20>>{"blake2b-160"},
    HashEntry<SizedBlake2<CryptoPP::BLAKE2b, 32>>{"blake2b-256"},
    HashEntry<SizedBlake2<CryptoPP::BLAKE2b, 48>>{"blake2b-384"},
    HashEntry<SizedBlake2<CryptoPP::BLAKE2b, 64>>{"blake2b-512"},
    HashEntry<SizedBlake2<CryptoPP::BLAKE2s, 16>>{"blake2s-128"},
    HashEntry<SizedBlake2<CryptoPP::BLAKE2s, 20>>{"blake2s-160"},
    HashEntry<SizedBlake2<CryptoPP::BLAKE2s, 28>>{"blake2s-224"},
    HashEntry<SizedBlake2<CryptoPP::BLAKE2s, 32>>{"blake2s-256"},
    HashEntry<CryptoPP::SM3>{"sm3"});

inline bool SameHashName(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

// Calls `visitor` with the HashEntry called `name`, in any case. Throws
// UnsupportedAlgorithm, naming all that there are.
template <class Visitor>
void WithHash(std::string_view name, Visitor visitor) {
  std::apply(
      [&](const auto&... entry) {
        const bool found =
            ((SameHashName(entry.name, name) && (visitor(entry), true)) || ...);
        if (found) return;
        std::string supported;
        ((supported += supported.empty() ? "" : ", ", supported += entry.name),
         ...);
        throw UnsupportedAlgorithm(fmt::format(
            "hash \"{}\" is not supported (supported: {})", name, supported));
      },
      kHashList);
}

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_HASH_LIST_H_
