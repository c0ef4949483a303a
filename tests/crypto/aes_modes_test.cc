#include "crypto/aes_modes.h"

#include <cryptopp/aes.h>
#include <cryptopp/modes.h>
#include <cryptopp/xts.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/crypto/test_bytes.h"

namespace pellucid::crypto {
namespace {

// A sector number as IEEE 1619 makes a tweak of it.
Bytes Tweaks(uint64_t first_sector, size_t sectors) {
  Bytes ivs(16 * sectors);
  for (size_t i = 0; i < sectors; ++i) {
    for (size_t digit = 0; digit < 8; ++digit) {
      ivs[16 * i + digit] =
          static_cast<std::byte>(((first_sector + i) >> (8 * digit)) & 0xff);
    }
  }
  return ivs;
}

// Each sector by itself, by Crypto++'s own mode.
template <class Mode>
Bytes CryptoPpEncrypt(const Bytes& key, const Bytes& ivs, size_t sector_size,
                      const Bytes& plaintext) {
  const auto* key_bytes = reinterpret_cast<const CryptoPP::byte*>(key.data());
  Bytes ciphertext(plaintext.size());
  for (size_t i = 0; i * sector_size < plaintext.size(); ++i) {
    typename Mode::Encryption mode;
    mode.SetKeyWithIV(key_bytes, key.size(),
                      reinterpret_cast<const CryptoPP::byte*>(&ivs[16 * i]));
    mode.ProcessData(
        reinterpret_cast<CryptoPP::byte*>(&ciphertext[i * sector_size]),
        reinterpret_cast<const CryptoPP::byte*>(&plaintext[i * sector_size]),
        sector_size);
  }
  return ciphertext;
}

struct ModeUnderTest {
  const char* name;
  std::unique_ptr<CipherMode> (*make)(std::span<const std::byte> key,
                                      AesPath path);
  Bytes (*expected)(const Bytes& key, const Bytes& ivs, size_t sector_size,
                    const Bytes& plaintext);
  size_t keys;
};

constexpr ModeUnderTest kXts = {
    "Xts", MakeAesXtsMode, CryptoPpEncrypt<CryptoPP::XTS_Mode<CryptoPP::AES>>,
    2};
constexpr ModeUnderTest kCbc = {
    "Cbc", MakeAesCbcMode, CryptoPpEncrypt<CryptoPP::CBC_Mode<CryptoPP::AES>>,
    1};

Bytes Encrypt(const CipherMode& mode, Bytes ivs, size_t sector_size,
              const Bytes& plaintext) {
  Bytes ciphertext(plaintext.size());
  mode.Encrypt(ivs, sector_size, plaintext, ciphertext);
  return ciphertext;
}

Bytes Decrypt(const CipherMode& mode, Bytes ivs, size_t sector_size,
              const Bytes& ciphertext) {
  Bytes plaintext(ciphertext.size());
  mode.Decrypt(ivs, sector_size, ciphertext, plaintext);
  return plaintext;
}

// IEEE Std 1619-2007, annex B. The plaintext is 00 01 ... ff twice, or the
// ciphertext of the vector before.
constexpr char kVector4[] =
    "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
    "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
    "328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
    "93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265"
    "5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8"
    "a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
    "1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c"
    "5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e"
    "94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
    "1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3"
    "e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344"
    "b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
    "74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752"
    "afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e"
    "bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
    "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568";
constexpr char kVector5Start[] = "264d3ca8512194fec312c8c9891f279f";
constexpr char kVector10[] =
    "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
    "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
    "5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
    "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
    "2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
    "b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
    "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
    "583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
    "84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
    "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
    "9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
    "a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
    "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
    "645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
    "1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
    "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";
constexpr char kKey128[] =
    "27182818284590452353602874713526 31415926535897932384626433832795";
constexpr char kKey256[] =
    "2718281828459045235360287471352662497757247093699959574966967627"
    "3141592653589793238462643383279502884197169399375105820974944592";

Bytes CountingBytes() {
  Bytes bytes(512);
  for (size_t i = 0; i < 512; ++i) bytes[i] = static_cast<std::byte>(i & 0xff);
  return bytes;
}

class AesPathTest : public testing::TestWithParam<AesPath> {};

TEST_P(AesPathTest, Ieee1619Vectors4And5) {
  const auto xts = MakeAesXtsMode(FromHex(kKey128), GetParam());
  const Bytes vector_4 = Encrypt(*xts, Tweaks(0, 1), 512, CountingBytes());
  EXPECT_EQ(ToHex(vector_4), kVector4);
  const Bytes vector_5 = Encrypt(*xts, Tweaks(1, 1), 512, vector_4);
  EXPECT_EQ(ToHex(vector_5).substr(0, 32), kVector5Start);
  EXPECT_EQ(Decrypt(*xts, Tweaks(1, 1), 512, vector_5), vector_4);
}

TEST_P(AesPathTest, Ieee1619Vector10) {
  const auto xts = MakeAesXtsMode(FromHex(kKey256), GetParam());
  EXPECT_EQ(ToHex(Encrypt(*xts, Tweaks(0xff, 1), 512, CountingBytes())),
            kVector10);
  EXPECT_EQ(Decrypt(*xts, Tweaks(0xff, 1), 512, FromHex(kVector10)),
            CountingBytes());
}

// NIST SP 800-38A, sections F.2.1, F.2.3 and F.2.5.
TEST_P(AesPathTest, NistCbcVectors) {
  constexpr char kPlaintext[] =
      "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
      "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
  const struct {
    const char* key;
    const char* ciphertext;
  } kVectors[] = {
      {"2b7e151628aed2a6abf7158809cf4f3c",
       "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
       "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"},
      {"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
       "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
       "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd"},
      {"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
       "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
       "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"},
  };
  Bytes plaintext = FromHex(kPlaintext);
  plaintext.resize(512);
  const Bytes iv = FromHex("000102030405060708090a0b0c0d0e0f");
  for (const auto& [key, expected] : kVectors) {
    const auto cbc = MakeAesCbcMode(FromHex(key), GetParam());
    const Bytes ciphertext = Encrypt(*cbc, iv, 512, plaintext);
    EXPECT_EQ(ToHex(ciphertext).substr(0, 128), expected);
    EXPECT_EQ(Decrypt(*cbc, iv, 512, ciphertext), plaintext);
  }
}

std::string PathName(AesPath path) {
  std::string name(ToString(path));
  std::erase(name, '-');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Paths, AesPathTest,
                         testing::ValuesIn(AvailableAesPaths()),
                         [](const auto& info) { return PathName(info.param); });

class AesModeTest
    : public testing::TestWithParam<std::tuple<ModeUnderTest, AesPath>> {
 protected:
  static std::unique_ptr<CipherMode> Make(const Bytes& key) {
    const auto& [mode, path] = GetParam();
    return mode.make(key, path);
  }

  static const ModeUnderTest& Mode() { return std::get<0>(GetParam()); }
};

TEST_P(AesModeTest, AgreesWithCryptoPpForEveryShape) {
  unsigned seed = 0;
  for (const size_t cipher_key_size :
       std::initializer_list<size_t>{16, 24, 32}) {
    const size_t key_size = cipher_key_size * Mode().keys;
    for (const size_t sector_size :
         std::initializer_list<size_t>{512, 1024, 2048, 4096}) {
      for (const size_t sectors :
           std::initializer_list<size_t>{1, 2, 7, 8, 9, 13, 17}) {
        const Bytes key = RandomBytes(key_size, ++seed);
        const Bytes ivs = RandomBytes(16 * sectors, ++seed);
        const Bytes plaintext = RandomBytes(sectors * sector_size, ++seed);
        const auto mode = Make(key);
        const Bytes ciphertext = Encrypt(*mode, ivs, sector_size, plaintext);
        const std::string shape =
            fmt::format("{} sectors of {} bytes, key of {} bytes", sectors,
                        sector_size, key_size);
        EXPECT_EQ(ciphertext, Mode().expected(key, ivs, sector_size, plaintext))
            << shape;
        EXPECT_EQ(Decrypt(*mode, ivs, sector_size, ciphertext), plaintext)
            << shape;
      }
    }
  }
}

TEST_P(AesModeTest, TakesBuffersAtAnyAddressAndTouchesNothingBeside) {
  constexpr size_t kSize = size_t{9} * 512;
  const Bytes key = RandomBytes(32 * Mode().keys, 1);
  const Bytes ivs = RandomBytes(size_t{16} * 9, 2);
  const Bytes plaintext = RandomBytes(kSize, 3);
  const Bytes expected = Mode().expected(key, ivs, 512, plaintext);
  const auto mode = Make(key);
  for (const size_t shift :
       std::initializer_list<size_t>{0, 1, 7, 15, 16, 31, 33, 63}) {
    Bytes in(kSize + 128, std::byte{0xaa});
    Bytes out(kSize + 128, std::byte{0xbb});
    std::ranges::copy(plaintext, in.begin() + static_cast<ptrdiff_t>(shift));
    Bytes used_ivs = ivs;
    mode->Encrypt(used_ivs, 512, std::span(in).subspan(shift, kSize),
                  std::span(out).subspan(64 - shift, kSize));
    Bytes framed(64 - shift, std::byte{0xbb});
    framed.insert(framed.end(), expected.begin(), expected.end());
    framed.resize(kSize + 128, std::byte{0xbb});
    EXPECT_EQ(out, framed) << shift;

    used_ivs = ivs;
    mode->Decrypt(used_ivs, 512, std::span(out).subspan(64 - shift, kSize),
                  std::span(in).subspan(shift, kSize));
    EXPECT_TRUE(
        std::ranges::equal(std::span(in).subspan(shift, kSize), plaintext))
        << shift;
    EXPECT_EQ(out, framed) << shift;
  }
}

TEST_P(AesModeTest, WorksInPlace) {
  const Bytes key = RandomBytes(16 * Mode().keys, 1);
  const Bytes ivs = RandomBytes(size_t{16} * 5, 2);
  const Bytes plaintext = RandomBytes(size_t{5} * 1024, 3);
  Bytes data = plaintext;
  Bytes used_ivs = ivs;
  Make(key)->Encrypt(used_ivs, 1024, data, data);
  EXPECT_EQ(data, Mode().expected(key, ivs, 1024, plaintext));
  used_ivs = ivs;
  Make(key)->Decrypt(used_ivs, 1024, data, data);
  EXPECT_EQ(data, plaintext);
}

TEST_P(AesModeTest, NoSectorsAreNoWork) {
  Make(RandomBytes(32 * Mode().keys, 1))->Encrypt({}, 512, {}, {});
}

TEST_P(AesModeTest, ManyThreadsShareOne) {
  const Bytes key = RandomBytes(32 * Mode().keys, 1);
  const Bytes ivs = RandomBytes(size_t{16} * 16, 2);
  const Bytes plaintext = RandomBytes(size_t{16} * 512, 3);
  const Bytes expected = Mode().expected(key, ivs, 512, plaintext);
  const auto mode = Make(key);
  std::vector<Bytes> outputs(4, Bytes(plaintext.size()));
  std::vector<std::thread> threads;
  for (Bytes& out : outputs) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        Bytes used_ivs = ivs;
        mode->Encrypt(used_ivs, 512, plaintext, out);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Bytes& out : outputs) EXPECT_EQ(out, expected);
}

TEST_P(AesModeTest, OtherKeyLengthsAreRefused) {
  for (const size_t size : std::initializer_list<size_t>{0, 1, 15, 17, 20, 31,
                                                         33, 40, 63, 65, 128}) {
    EXPECT_THROW(Make(Bytes(size)), std::invalid_argument) << size;
  }
  EXPECT_THROW(Make(Bytes(Mode().keys == 1 ? 64 : 16)), std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(
    Modes, AesModeTest,
    testing::Combine(testing::Values(kXts, kCbc),
                     testing::ValuesIn(AvailableAesPaths())),
    [](const auto& info) {
      return std::get<0>(info.param).name + PathName(std::get<1>(info.param));
    });

TEST(AesPathsTest, PortablePathIsAlwaysThere) {
  EXPECT_EQ(AvailableAesPaths().front(), AesPath::kPortable);
}

}  // namespace
}  // namespace pellucid::crypto
