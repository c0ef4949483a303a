#include "crypto/sector_cipher.h"

#include <cryptopp/aes.h>
#include <cryptopp/aria.h>
#include <cryptopp/camellia.h>
#include <cryptopp/cast.h>
#include <cryptopp/modes.h>
#include <cryptopp/serpent.h>
#include <cryptopp/sm4.h>
#include <cryptopp/twofish.h>
#include <cryptopp/xts.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "crypto/hash.h"
#include "crypto/unsupported_algorithm.h"
#include "tests/crypto/reference_vectors.h"
#include "tests/crypto/test_bytes.h"

namespace pellucid::crypto {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::unique_ptr<SectorCipher> Make(std::string_view cipher,
                                   std::string_view mode, const Bytes& key,
                                   size_t sector_size = 512) {
  return MakeSectorCipher(ParseCipherSpec(cipher, mode), key, sector_size);
}

Bytes Encrypt(const SectorCipher& cipher, uint64_t first_sector,
              const Bytes& plaintext) {
  Bytes ciphertext(plaintext.size());
  cipher.Encrypt(first_sector, plaintext, ciphertext);
  return ciphertext;
}

Bytes Decrypt(const SectorCipher& cipher, uint64_t first_sector,
              const Bytes& ciphertext) {
  Bytes plaintext(ciphertext.size());
  cipher.Decrypt(first_sector, ciphertext, plaintext);
  return plaintext;
}

Bytes DescendingKey(size_t size) {
  Bytes key(size);
  for (size_t i = 0; i < size; ++i) key[i] = static_cast<std::byte>(255 - i);
  return key;
}

std::string Sha256(const Bytes& bytes) {
  const auto hasher = MakeHasher("sha256");
  Bytes digest(hasher->digest_size());
  hasher->Update(bytes);
  hasher->Final(digest);
  return ToHex(digest);
}

class ReferenceVectorTest : public testing::TestWithParam<SectorVector> {};

TEST_P(ReferenceVectorTest, BothDirectionsAndInPlace) {
  const SectorVector& vector = GetParam();
  const auto cipher = Make(vector.cipher, vector.mode,
                           DescendingKey(vector.key_size), vector.sector_size);
  EXPECT_EQ(cipher->sector_size(), vector.sector_size);
  const Bytes plaintext =
      PatternBytes(kSectorVectorSectors * vector.sector_size);
  const Bytes ciphertext = Encrypt(*cipher, vector.first_sector, plaintext);
  EXPECT_EQ(Sha256(ciphertext), vector.sha256);
  EXPECT_EQ(Decrypt(*cipher, vector.first_sector, ciphertext), plaintext);

  Bytes data = plaintext;
  cipher->Encrypt(vector.first_sector, data, data);
  EXPECT_EQ(data, ciphertext);
  cipher->Decrypt(vector.first_sector, data, data);
  EXPECT_EQ(data, plaintext);
}

INSTANTIATE_TEST_SUITE_P(
    Vectors, ReferenceVectorTest, testing::ValuesIn(kSectorVectors),
    [](const auto& info) {
      const SectorVector& vector = info.param;
      std::string name = fmt::format("{}_{}_{}_{}", vector.cipher, vector.mode,
                                     vector.key_size * 8, vector.sector_size);
      std::ranges::replace_if(
          name, [](char c) { return c == '-' || c == ':'; }, '_');
      return name;
    });

// Single blocks, as the cipher's own specification has them.
struct BlockVector {
  const char* cipher;
  const char* key;
  const char* plaintext;
  const char* ciphertext;
};

constexpr BlockVector kBlockVectors[] = {
    // FIPS 197, appendix C.
    {"aes", "000102030405060708090a0b0c0d0e0f",
     "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
    {"aes", "000102030405060708090a0b0c0d0e0f1011121314151617",
     "00112233445566778899aabbccddeeff", "dda97ca4864cdfe06eaf70a0ec0d7191"},
    {"aes", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     "00112233445566778899aabbccddeeff", "8ea2b7ca516745bfeafc49904b496089"},
    // RFC 3713, appendix A.
    {"camellia", "0123456789abcdeffedcba9876543210",
     "0123456789abcdeffedcba9876543210", "67673138549669730857065648eabe43"},
    // RFC 2144, appendix B.1: keys of 128, 80 and 40 bits.
    {"cast5", "0123456712345678234567893456789a", "0123456789abcdef",
     "238b4fe5847e44b2"},
    {"cast5", "01234567123456782345", "0123456789abcdef", "eb6a711a2c02271b"},
    {"cast5", "0123456712", "0123456789abcdef", "7ac816d16e9b302e"},
    // RFC 5794, appendix A.
    {"aria", "000102030405060708090a0b0c0d0e0f",
     "00112233445566778899aabbccddeeff", "d718fbd6ab644c739da95f3be6451778"},
    {"aria", "000102030405060708090a0b0c0d0e0f1011121314151617",
     "00112233445566778899aabbccddeeff", "26449c1805dbe7aa25a468ce263a9e79"},
    {"aria", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     "00112233445566778899aabbccddeeff", "f92bd7c79fb72e2f2b8f80c1972d24fc"},
    // GB/T 32907-2016, appendix A.1.
    {"sm4", "0123456789abcdeffedcba9876543210",
     "0123456789abcdeffedcba9876543210", "681edf34d206965e86b3e94f536e4246"},
    // The Twofish paper, appendix B: known answers of the first iteration.
    {"twofish", "00000000000000000000000000000000",
     "00000000000000000000000000000000", "9f589f5cf6122c32b6bfec2f2ae8c35a"},
};

TEST(BlockVectorTest, PublishedBlocksComeOutOfEcb) {
  for (const BlockVector& vector : kBlockVectors) {
    const auto cipher = Make(vector.cipher, "ecb", FromHex(vector.key));
    Bytes plaintext(512);
    std::ranges::copy(FromHex(vector.plaintext), plaintext.begin());
    EXPECT_EQ(ToHex(Encrypt(*cipher, 0, plaintext))
                  .substr(0, std::string_view(vector.ciphertext).size()),
              vector.ciphertext)
        << vector.cipher << " " << vector.key;
  }
}

// Crypto++'s own modes, sector by sector, with plain64 IVs.
template <class Mode>
Bytes CryptoPpModeEncrypt(const Bytes& key, size_t sector_size,
                          uint64_t first_sector, const Bytes& plaintext) {
  Bytes ciphertext(plaintext.size());
  for (size_t offset = 0; offset < plaintext.size(); offset += sector_size) {
    const uint64_t sector = first_sector + offset / 512;
    CryptoPP::byte iv[16] = {};
    for (size_t i = 0; i < 8; ++i) {
      iv[i] = static_cast<CryptoPP::byte>((sector >> (8 * i)) & 0xff);
    }
    typename Mode::Encryption mode;
    const auto* key_bytes = reinterpret_cast<const CryptoPP::byte*>(key.data());
    if (mode.IsResynchronizable()) {
      mode.SetKeyWithIV(key_bytes, key.size(), iv, mode.IVSize());
    } else {
      mode.SetKey(key_bytes, key.size());
    }
    mode.ProcessData(
        reinterpret_cast<CryptoPP::byte*>(&ciphertext[offset]),
        reinterpret_cast<const CryptoPP::byte*>(&plaintext[offset]),
        sector_size);
  }
  return ciphertext;
}

template <class Mode>
void ExpectAgreement(std::string_view cipher, std::string_view cipher_mode,
                     size_t key_size) {
  constexpr uint64_t kFirstSector = 0x123456789;
  unsigned seed = 0;
  for (const size_t sector_size :
       std::initializer_list<size_t>{512, 1024, 2048, 4096}) {
    // More sectors than IVs are made at a time.
    for (const size_t sectors : {size_t{1}, size_t{3}, size_t{131}}) {
      const Bytes key = RandomBytes(key_size, ++seed);
      const Bytes plaintext = RandomBytes(sectors * sector_size, ++seed);
      const auto ours = Make(cipher, cipher_mode, key, sector_size);
      const Bytes ciphertext = Encrypt(*ours, kFirstSector, plaintext);
      const std::string shape =
          fmt::format("{}-{}, {} sectors of {} bytes, key of {} bytes", cipher,
                      cipher_mode, sectors, sector_size, key_size);
      EXPECT_EQ(ciphertext, CryptoPpModeEncrypt<Mode>(key, sector_size,
                                                      kFirstSector, plaintext))
          << shape;
      EXPECT_EQ(Decrypt(*ours, kFirstSector, ciphertext), plaintext) << shape;
    }
  }
}

template <class Cipher>
void ExpectUnmaskedModesAgree(std::string_view name, size_t key_size) {
  using namespace CryptoPP;  // NOLINT(google-build-using-namespace)
  ExpectAgreement<CBC_Mode<Cipher>>(name, "cbc-plain64", key_size);
  ExpectAgreement<CTR_Mode<Cipher>>(name, "ctr-plain64", key_size);
  ExpectAgreement<ECB_Mode<Cipher>>(name, "ecb", key_size);
}

template <class Cipher>
void ExpectAllModesAgree(std::string_view name,
                         std::initializer_list<size_t> key_sizes) {
  for (const size_t key_size : key_sizes) {
    ExpectUnmaskedModesAgree<Cipher>(name, key_size);
    ExpectAgreement<CryptoPP::XTS_Mode<Cipher>>(name, "xts-plain64",
                                                2 * key_size);
  }
}

TEST(CryptoPpModesTest, Aes) {
  ExpectAllModesAgree<CryptoPP::AES>("aes", {16, 24, 32});
}
TEST(CryptoPpModesTest, Serpent) {
  ExpectAllModesAgree<CryptoPP::Serpent>("serpent", {16, 24, 32});
}
TEST(CryptoPpModesTest, Twofish) {
  ExpectAllModesAgree<CryptoPP::Twofish>("twofish", {16, 24, 32});
}
TEST(CryptoPpModesTest, Camellia) {
  ExpectAllModesAgree<CryptoPP::Camellia>("camellia", {16, 24, 32});
}
TEST(CryptoPpModesTest, Aria) {
  ExpectAllModesAgree<CryptoPP::ARIA>("aria", {16, 24, 32});
}
TEST(CryptoPpModesTest, Sm4) {
  ExpectAllModesAgree<CryptoPP::SM4>("sm4", {16});
}
TEST(CryptoPpModesTest, Cast5) {
  for (const size_t key_size : std::initializer_list<size_t>{5, 10, 16}) {
    ExpectUnmaskedModesAgree<CryptoPP::CAST128>("cast5", key_size);
  }
}

TEST(SectorCipherTest, SectorsCanBeTakenOneByOne) {
  for (const char* mode : {"xts-plain64", "cbc-essiv:sha256", "lrw-benbi",
                           "ctr-plain64", "cbc-eboiv"}) {
    for (const size_t sector_size : std::initializer_list<size_t>{512, 4096}) {
      const Bytes key =
          RandomBytes(std::string_view(mode).starts_with("lrw") ? 48 : 32, 1);
      const auto cipher = Make("aes", mode, key, sector_size);
      const Bytes plaintext = RandomBytes(5 * sector_size, 2);
      const Bytes whole = Encrypt(*cipher, 40, plaintext);
      Bytes pieces(plaintext.size());
      for (size_t i = 0; i < 5; ++i) {
        cipher->Encrypt(
            40 + i * (sector_size / 512),
            std::span(plaintext).subspan(i * sector_size, sector_size),
            std::span(pieces).subspan(i * sector_size, sector_size));
      }
      EXPECT_EQ(pieces, whole) << mode << " " << sector_size;
    }
  }
}

TEST(SectorCipherTest, EssivSaltIsTheHashOfTheWholeXtsKey) {
  // A changed tweak half must change the IVs and not only their encryption.
  Bytes key = RandomBytes(64, 1);
  const Bytes plaintext(512);
  const Bytes before =
      Encrypt(*Make("aes", "xts-essiv:sha256", key), 0, plaintext);
  EXPECT_EQ(before,
            Encrypt(*Make("aes", "xts-essiv:SHA256", key), 0, plaintext));
  key.back() ^= std::byte{1};
  EXPECT_NE(before,
            Encrypt(*Make("aes", "xts-essiv:sha256", key), 0, plaintext));
}

TEST(SectorCipherTest, ManyThreadsShareOne) {
  for (const char* name :
       {"aes", "serpent", "twofish", "cast5", "camellia", "sm4", "aria"}) {
    for (const char* mode : {"cbc-plain64", "cbc-eboiv", "ctr-plain64"}) {
      const auto cipher = Make(name, mode, RandomBytes(16, 1));
      const Bytes plaintext = RandomBytes(size_t{8} * 512, 2);
      const Bytes expected = Encrypt(*cipher, 7, plaintext);
      std::vector<Bytes> outputs(4);
      std::vector<std::thread> threads;
      for (Bytes& out : outputs) {
        threads.emplace_back([&] {
          for (int i = 0; i < 10; ++i) {
            out = Encrypt(*cipher, 7, plaintext);
            if (Decrypt(*cipher, 7, out) != plaintext) out.clear();
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
      for (const Bytes& out : outputs) {
        EXPECT_EQ(out, expected) << name << "-" << mode;
      }
    }
  }
}

TEST(SectorCipherTest, NothingIsEncryptedToNothing) {
  Make("aes", "xts-plain64", Bytes(64))->Encrypt(0, {}, {});
}

TEST(SectorCipherTest, PartsOfSectorsAreRefused) {
  const auto cipher = Make("aes", "xts-plain64", Bytes(64), 4096);
  Bytes in(4096 + 512);
  Bytes out(4096 + 512);
  EXPECT_THROW(cipher->Encrypt(0, in, out), std::invalid_argument);
  EXPECT_THROW(cipher->Decrypt(0, std::span(in).first(4096), out),
               std::invalid_argument);
}

struct RefusedKey {
  const char* cipher;
  const char* mode;
  size_t key_size;
  const char* supported;
};

constexpr RefusedKey kRefusedKeys[] = {
    {"aes", "xts-plain64", 16, "supported: 32, 48, 64"},
    {"aes", "xts-plain64", 33, "supported: 32, 48, 64"},
    {"aes", "xts-plain64", 0, "supported: 32, 48, 64"},
    {"aes", "cbc-plain64", 64, "supported: 16, 24, 32"},
    {"aes", "lrw-benbi", 16, "supported: 32, 40, 48"},
    {"serpent", "cbc-plain64", 20, "supported: 16, 24, 32"},
    {"sm4", "xts-plain64", 64, "supported: 32"},
    {"cast5", "cbc-plain64", 32, "14, 15, 16"},
    {"cast5", "cbc-plain64", 4, "supported: 5, 6, 7"},
};

TEST(SectorCipherRefusalTest, KeyLengthIsNamedWithCipherAndMode) {
  for (const RefusedKey& refused : kRefusedKeys) {
    const CipherSpec spec = ParseCipherSpec(refused.cipher, refused.mode);
    EXPECT_THAT(
        [&] { MakeSectorCipher(spec, Bytes(refused.key_size)); },
        ThrowsMessage<UnsupportedAlgorithm>(AllOf(
            HasSubstr(spec.ToString()), HasSubstr("cipher " + spec.cipher),
            HasSubstr("mode " + spec.mode),
            HasSubstr(fmt::format("{} bytes", refused.key_size)),
            HasSubstr(refused.supported))));
  }
}

TEST(SectorCipherRefusalTest, XtsAndLrwNeedBlocksOf16Bytes) {
  for (const char* mode : {"xts-plain64", "lrw-benbi"}) {
    EXPECT_THAT([&] { Make("cast5", mode, Bytes(32)); },
                ThrowsMessage<UnsupportedAlgorithm>(
                    AllOf(HasSubstr("cast5"), HasSubstr("16 bytes"),
                          HasSubstr("supported: cast5-cbc"))));
  }
}

TEST(SectorCipherRefusalTest, EssivDigestMustBeAKeyOfTheCipher) {
  for (const char* hash : {"sha1", "sha512", "sha384", "sha224"}) {
    EXPECT_THAT(
        [&] { Make("aes", std::string("cbc-essiv:") + hash, Bytes(32)); },
        ThrowsMessage<UnsupportedAlgorithm>(
            AllOf(HasSubstr(hash),
                  HasSubstr(fmt::format("{}-byte", DigestSize(hash))),
                  HasSubstr("aes"),
                  HasSubstr("supported: hashes with digests of 16, "
                            "24, 32 bytes"))));
  }
  EXPECT_THROW(Make("sm4", "cbc-essiv:sha256", Bytes(16)),
               UnsupportedAlgorithm);
  EXPECT_THROW(Make("cast5", "cbc-essiv:sha256", Bytes(16)),
               UnsupportedAlgorithm);
}

TEST(SectorCipherRefusalTest, EboivIsOnlyForCbc) {
  EXPECT_THAT(
      [] { Make("aes", "xts-eboiv", Bytes(64)); },
      ThrowsMessage<UnsupportedAlgorithm>(AllOf(
          HasSubstr("aes-xts-eboiv"), HasSubstr("supported: aes-cbc-eboiv"))));
}

TEST(SectorCipherRefusalTest, SectorSize) {
  for (const size_t size :
       std::initializer_list<size_t>{0, 1, 256, 513, 1536, 8192}) {
    EXPECT_THAT([&] { Make("aes", "xts-plain64", Bytes(64), size); },
                ThrowsMessage<UnsupportedAlgorithm>(
                    AllOf(HasSubstr(fmt::format("{} bytes", size)),
                          HasSubstr("supported: 512, 1024, 2048, 4096"))));
  }
}

// A spec that did not come from ParseCipherSpec is checked as well.
TEST(SectorCipherRefusalTest, UnknownNames) {
  const Bytes key(64);
  EXPECT_THROW(MakeSectorCipher({"des", "xts", "plain64", ""}, key),
               UnsupportedAlgorithm);
  EXPECT_THROW(MakeSectorCipher({"aes", "ocb", "plain64", ""}, key),
               UnsupportedAlgorithm);
  EXPECT_THROW(MakeSectorCipher({"aes", "xts", "plain65", ""}, key),
               UnsupportedAlgorithm);
  EXPECT_THROW(MakeSectorCipher({"aes", "xts", "", ""}, key),
               UnsupportedAlgorithm);
  EXPECT_THROW(MakeSectorCipher({"aes", "xts", "essiv", ""}, key),
               UnsupportedAlgorithm);
}

}  // namespace
}  // namespace pellucid::crypto
