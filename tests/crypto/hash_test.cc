#include "crypto/hash.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "crypto/unsupported_algorithm.h"
#include "tests/crypto/test_bytes.h"

namespace pellucid::crypto {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string HexDigest(std::string_view hash, std::string_view text) {
  const auto hasher = MakeHasher(hash);
  Bytes digest(hasher->digest_size());
  hasher->Update(AsBytes(text));
  hasher->Final(digest);
  return ToHex(digest);
}

struct AbcDigest {
  const char* hash;
  const char* digest;
};

// The digest of "abc".
constexpr AbcDigest kAbcDigests[] = {
    // RFC 1321, appendix A.5.
    {"md5", "900150983cd24fb0d6963f7d28e17f72"},
    // FIPS 180 examples of NIST's Cryptographic Standards and Guidelines.
    {"sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {"sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"},
    {"sha256",
     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"sha384",
     "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
     "8086072ba1e7cc2358baeca134c825a7"},
    {"sha512",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
     "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
    // FIPS 202 examples, the same place.
    {"sha3-224", "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"},
    {"sha3-256",
     "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"},
    {"sha3-384",
     "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b2"
     "98d88cea927ac7f539f1edf228376d25"},
    {"sha3-512",
     "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e"
     "10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0"},
    // The RIPEMD-160 page of its authors.
    {"ripemd160", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"},
    {"rmd160", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"},
    // ISO/IEC 10118-3 test vectors of the Whirlpool submission.
    {"whirlpool",
     "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c"
     "7181eebdb6c57e277d0e34957114cbd6c797fc9d95d8b582d225292076d4eef5"},
    // Linux crypto: wp256 and wp384 are the beginnings of Whirlpool.
    {"wp512",
     "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c"
     "7181eebdb6c57e277d0e34957114cbd6c797fc9d95d8b582d225292076d4eef5"},
    {"wp384",
     "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c"
     "7181eebdb6c57e277d0e34957114cbd6"},
    {"wp256",
     "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c"},
    // RFC 7693, appendices A and B.
    {"blake2b-512",
     "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
     "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"},
    {"blake2s-256",
     "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"},
    // Made with Python's hashlib.
    {"blake2b-256",
     "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"},
    {"blake2s-128", "aa4938119b1dc7b87cbad0ffd200d0ae"},
    // GB/T 32905-2016, appendix A.1.
    {"sm3", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"},
};

class PublishedDigestTest : public testing::TestWithParam<AbcDigest> {};

TEST_P(PublishedDigestTest, OfAbc) {
  EXPECT_EQ(HexDigest(GetParam().hash, "abc"), GetParam().digest);
  EXPECT_EQ(2 * DigestSize(GetParam().hash),
            std::string_view(GetParam().digest).size());
}

INSTANTIATE_TEST_SUITE_P(Hashes, PublishedDigestTest,
                         testing::ValuesIn(kAbcDigests), [](const auto& info) {
                           std::string name = info.param.hash;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(HashTest, NameIsTakenInAnyCase) {
  EXPECT_EQ(HexDigest("SHA256", "abc"), HexDigest("sha256", "abc"));
  EXPECT_EQ(DigestSize("Whirlpool"), 64U);
}

TEST(HashTest, PiecesMakeTheSameDigestAsTheWhole) {
  const std::string text(1000, 'x');
  const auto hasher = MakeHasher("sha512");
  for (size_t offset = 0; offset < text.size(); offset += 37) {
    hasher->Update(AsBytes(std::string_view(text).substr(offset, 37)));
  }
  Bytes digest(64);
  hasher->Final(digest);
  EXPECT_EQ(ToHex(digest), HexDigest("sha512", text));
}

TEST(HashTest, FinalStartsOver) {
  const auto hasher = MakeHasher("sha1");
  Bytes digest(20);
  hasher->Update(AsBytes("something else"));
  hasher->Final(digest);
  hasher->Update(AsBytes("abc"));
  hasher->Final(digest);
  EXPECT_EQ(ToHex(digest), HexDigest("sha1", "abc"));
}

TEST(HashTest, DigestBufferOfAnotherSizeIsRefused) {
  Bytes digest(19);
  EXPECT_THROW(MakeHasher("sha1")->Final(digest), std::invalid_argument);
}

TEST(HashTest, UnknownHashIsRefusedByName) {
  for (const char* name : {"tiger", "", "sha", "sha2567", "sha-256"}) {
    EXPECT_THAT([&] { MakeHasher(name); },
                testing::ThrowsMessage<UnsupportedAlgorithm>(AllOf(
                    HasSubstr(fmt::format("\"{}\"", name)),
                    HasSubstr("supported: md5, sha1"), HasSubstr("sm3"))));
    EXPECT_THROW(DigestSize(name), UnsupportedAlgorithm);
  }
}

}  // namespace
}  // namespace pellucid::crypto
