#include "crypto/pbkdf2.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "crypto/hash.h"
#include "crypto/hash_list.h"
#include "crypto/unsupported_algorithm.h"
#include "tests/crypto/test_bytes.h"

namespace pellucid::crypto {
namespace {

using std::string_view_literals::operator""sv;

std::string HexKey(std::string_view hash, std::span<const std::byte> passphrase,
                   std::span<const std::byte> salt, uint32_t iterations,
                   size_t size) {
  Bytes key(size);
  Pbkdf2(hash, passphrase, salt, iterations, key);
  return ToHex(key);
}

std::string HexKey(std::string_view hash, std::string_view passphrase,
                   std::string_view salt, uint32_t iterations, size_t size) {
  return HexKey(hash, AsBytes(passphrase), AsBytes(salt), iterations, size);
}

TEST(Pbkdf2Test, Rfc6070Sha1) {
  EXPECT_EQ(HexKey("sha1", "password", "salt", 1, 20),
            "0c60c80f961f0e71f3a9b524af6012062fe037a6");
  EXPECT_EQ(HexKey("sha1", "password", "salt", 2, 20),
            "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957");
  EXPECT_EQ(HexKey("sha1", "password", "salt", 4096, 20),
            "4b007901b765489abead49d926f721d065a429c1");
  EXPECT_EQ(HexKey("sha1", "passwordPASSWORDpassword",
                   "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, 25),
            "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
  EXPECT_EQ(HexKey("sha1", "pass\0word"sv, "sa\0lt"sv, 4096, 16),
            "56fa6aa75548099dcc37d7f03425e0c3");
}

TEST(Pbkdf2Test, Rfc7914Section11Sha256) {
  EXPECT_EQ(HexKey("sha256", "passwd", "salt", 1, 64),
            "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
            "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783");
  EXPECT_EQ(HexKey("sha256", "Password", "NaCl", 80000, 64),
            "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"
            "a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d");
}

// With a passphrase longer than a block of the hash.
TEST(Pbkdf2Test, PythonHashlibAgrees) {
  const std::string passphrase(200, 'k');
  const struct {
    const char* hash;
    const char* key;
  } kCases[] = {
      {"md5",
       "f58e3d44b985dc26e42abd95dee81d26b665c9f86c8c7f87"
       "5cc8807ccf44efbf0cb42ac0186d76cb"},
      {"sha224",
       "977d981cc7b7e9ef2b8ebb95512dea3b885fa7657bd32189"
       "d8c52fe63ccf9f6d69c88a452e84760b"},
      {"sha256",
       "4eb6bcb6abd31594d986bf921f26da1781afb9ad6fc8085c"
       "97c241decf640c958702b5d6f4eb27e7"},
      {"sha384",
       "79edc77d3d044ba5e36577f56e83f76b9e1542d4ec9de774"
       "6ac90b6500df070b6a60962c9910580e"},
      {"sha512",
       "7ea57cfb469156c73f638a273d6608bb7039c3231a6b70dc"
       "787f91cc3bc9df9eff2c24e223481818"},
      {"ripemd160",
       "c136ab04891bc8950f91eab33209ea871654f35a733532f8"
       "a322e7898e2f3216ce26ebbface664ec"},
      {"sha3-256",
       "7ed5d6dc3c2ebf3bbbda3b57c5b5c8633f086aa4d70ada51"
       "7a7dd2dd8ae931664f38355a5d2db18e"},
      {"blake2b-512",
       "2142896bad3a9fff67fef71a3de88dcf52eb74e4e26bdc2f"
       "f31caed870f222cbb8bb25d39fba5e03"},
      {"blake2s-256",
       "d3681e706fa15ab7bdd6821334fa798d2a32aed354596cbb"
       "8f300369052e29b359e17f725744adeb"},
      {"sm3",
       "e62558623d80d6c83e8e33783221f703124c07841aa06ebf"
       "9529b4915a6ab84b885cd1cb077db2c2"},
  };
  for (const auto& [hash, key] : kCases) {
    EXPECT_EQ(HexKey(hash, passphrase, "salt", 100, 40), key) << hash;
  }
}

// HMAC (RFC 2104) spelled out.
Bytes Hmac(Hasher& hasher, size_t block_size, std::span<const std::byte> key,
           std::span<const std::byte> message) {
  Bytes block(block_size);
  Bytes digest(hasher.digest_size());
  if (key.size() > block_size) {
    hasher.Update(key);
    hasher.Final(digest);
    std::ranges::copy(digest, block.begin());
  } else {
    std::ranges::copy(key, block.begin());
  }
  for (std::byte& b : block) b ^= std::byte{0x36};
  hasher.Update(block);
  hasher.Update(message);
  hasher.Final(digest);
  for (std::byte& b : block) b ^= std::byte{0x36 ^ 0x5c};
  hasher.Update(block);
  hasher.Update(digest);
  hasher.Final(digest);
  return digest;
}

// The first block of PBKDF2's output, as RFC 8018 has it.
Bytes FirstBlock(std::string_view hash, size_t block_size,
                 std::span<const std::byte> passphrase,
                 std::span<const std::byte> salt, uint32_t iterations) {
  const auto hasher = MakeHasher(hash);
  Bytes message(salt.begin(), salt.end());
  message.insert(message.end(),
                 {std::byte{0}, std::byte{0}, std::byte{0}, std::byte{1}});
  Bytes u = Hmac(*hasher, block_size, passphrase, message);
  Bytes sum = u;
  for (uint32_t i = 1; i < iterations; ++i) {
    u = Hmac(*hasher, block_size, passphrase, u);
    for (size_t j = 0; j < u.size(); ++j) sum[j] ^= u[j];
  }
  return sum;
}

TEST(Pbkdf2Test, EveryHashAgreesWithHmacSpelledOut) {
  std::apply(
      [](const auto&... entries) {
        const auto check = []<class Entry>(const Entry& entry) {
          for (const size_t size : {size_t{0}, Entry::kBlockSize - 1,
                                    Entry::kBlockSize, Entry::kBlockSize + 1}) {
            const Bytes passphrase = RandomBytes(size, 1);
            const Bytes salt = RandomBytes(32, 2);
            EXPECT_EQ(
                HexKey(entry.name, passphrase, salt, 5, Entry::kDigestSize),
                ToHex(FirstBlock(entry.name, Entry::kBlockSize, passphrase,
                                 salt, 5)))
                << entry.name << " with a passphrase of " << size << " bytes";
          }
        };
        (check(entries), ...);
      },
      kHashList);
}

TEST(Pbkdf2Test, ShortKeyIsTheBeginningOfALongOne) {
  // Enough iterations for threads, and a last block that is cut off.
  const std::string long_key = HexKey("sha256", "pw", "salt", 6000, 131);
  EXPECT_EQ(long_key,
            "c9221a160812444605f83eefa37ed302c7d8a1c0a8a2bb84eb27df4ebc210bd9"
            "4a80834205ced08d3bb778556d2b7a417b5d45167990f489522fe0d92b9370c0"
            "5bf52e5d899ddd6fcd5c671af5c96ac4eaa84f363ee709cc10b2557831c9af12"
            "899bff04d020d9f62cd1d252dc3d4b6de64f2888940245641969cb66b79892da"
            "5f9b38");
  for (const size_t size :
       std::initializer_list<size_t>{0, 1, 31, 32, 33, 64, 130}) {
    EXPECT_EQ(HexKey("sha256", "pw", "salt", 6000, size),
              long_key.substr(0, 2 * size));
  }
}

TEST(Pbkdf2Test, EmptyPassphraseAndSalt) {
  // Made with Python's hashlib.
  EXPECT_EQ(HexKey("sha256", "", "", 1, 32),
            "f7ce0b653d2d72a4108cf5abe912ffdd777616dbbb27a70e8204f3ae2d0f6fad");
}

TEST(Pbkdf2Test, ManyThreadsDeriveAtOnce) {
  const std::string expected = HexKey("sha1", "pw", "salt", 6000, 60);
  std::vector<std::thread> threads;
  std::vector<std::string> keys(4);
  for (std::string& key : keys) {
    threads.emplace_back(
        [&key] { key = HexKey("sha1", "pw", "salt", 6000, 60); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& key : keys) EXPECT_EQ(key, expected);
}

TEST(Pbkdf2Test, NoIterationsIsRefused) {
  Bytes key(16);
  EXPECT_THROW(Pbkdf2("sha1", {}, {}, 0, key), std::invalid_argument);
}

TEST(Pbkdf2Test, UnknownHashIsRefusedEvenForAnEmptyKey) {
  EXPECT_THROW(Pbkdf2("sha9", {}, {}, 1, {}), UnsupportedAlgorithm);
}

}  // namespace
}  // namespace pellucid::crypto
