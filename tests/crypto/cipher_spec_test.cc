#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "crypto/sector_cipher.h"
#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(CipherSpecTest, TakesNameAndModeApart) {
  const CipherSpec xts = ParseCipherSpec("aes", "xts-plain64");
  EXPECT_EQ(xts.cipher, "aes");
  EXPECT_EQ(xts.mode, "xts");
  EXPECT_EQ(xts.iv, "plain64");
  EXPECT_EQ(xts.iv_hash, "");

  const CipherSpec essiv = ParseCipherSpec("serpent", "cbc-essiv:sha256");
  EXPECT_EQ(essiv.cipher, "serpent");
  EXPECT_EQ(essiv.mode, "cbc");
  EXPECT_EQ(essiv.iv, "essiv");
  EXPECT_EQ(essiv.iv_hash, "sha256");
}

TEST(CipherSpecTest, PrintsWhatCryptsetupPrints) {
  for (const char* mode : {"xts-plain64", "xts-plain", "xts-plain64be",
                           "cbc-essiv:sha256", "xts-essiv:wp256", "lrw-benbi",
                           "cbc-null", "cbc-eboiv", "ctr-plain64", "ecb"}) {
    EXPECT_EQ(ParseCipherSpec("aes", mode).ToString(),
              std::string("aes-") + mode);
  }
}

TEST(CipherSpecTest, HashThatMeansNothingIsDropped) {
  EXPECT_EQ(ParseCipherSpec("aes", "xts-plain64:sha256").ToString(),
            "aes-xts-plain64");
  EXPECT_EQ(ParseCipherSpec("aes", "cbc-plain:no-such-hash").ToString(),
            "aes-cbc-plain");
}

// QEMU writes the IV generator that it was given, although ECB has no IV.
TEST(CipherSpecTest, EcbHasNoIv) {
  EXPECT_EQ(ParseCipherSpec("aes", "ecb-plain64").ToString(), "aes-ecb");
  EXPECT_THROW(ParseCipherSpec("aes", "ecb-nonsense"), UnsupportedAlgorithm);
}

TEST(CipherSpecTest, UnknownCipherIsRefusedByName) {
  EXPECT_THAT([] { ParseCipherSpec("blowfish", "cbc-plain"); },
              ThrowsMessage<UnsupportedAlgorithm>(
                  AllOf(HasSubstr("cipher \"blowfish\""),
                        HasSubstr("supported: aes, serpent, twofish, cast5, "
                                  "camellia, sm4, aria"))));
}

TEST(CipherSpecTest, UnknownModeIsRefusedByName) {
  EXPECT_THAT([] { ParseCipherSpec("aes", "gcm-plain64"); },
              ThrowsMessage<UnsupportedAlgorithm>(
                  AllOf(HasSubstr("cipher mode \"gcm\""),
                        HasSubstr("supported: xts, cbc, ctr, ecb, lrw"))));
}

TEST(CipherSpecTest, UnknownIvGeneratorIsRefusedByName) {
  EXPECT_THAT([] { ParseCipherSpec("aes", "xts-random"); },
              ThrowsMessage<UnsupportedAlgorithm>(
                  AllOf(HasSubstr("IV generator \"random\""),
                        HasSubstr("supported: null, plain, plain64, plain64be, "
                                  "essiv, benbi, eboiv"))));
}

TEST(CipherSpecTest, UnknownEssivHashIsRefusedByName) {
  EXPECT_THAT([] { ParseCipherSpec("aes", "cbc-essiv:tgr192"); },
              ThrowsMessage<UnsupportedAlgorithm>(
                  AllOf(HasSubstr("\"tgr192\""), HasSubstr("sha256"))));
  EXPECT_THROW(ParseCipherSpec("aes", "cbc-essiv"), UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("aes", "cbc-essiv:"), UnsupportedAlgorithm);
}

TEST(CipherSpecTest, KernelCryptoApiNamesAreRefused) {
  EXPECT_THROW(ParseCipherSpec("capi:xts(ecb(aes-generic))", "plain64"),
               UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("capi:xts(ecb(aes", "generic))-plain64"),
               UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("cipher_null", "ecb"), UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("aes:64", "cbc-lmk"), UnsupportedAlgorithm);
}

// dm-crypt and QEMU compare names exactly, and so a header that differs in
// case was not written by either.
TEST(CipherSpecTest, SpellingIsExact) {
  EXPECT_THROW(ParseCipherSpec("AES", "xts-plain64"), UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("aes", "XTS-plain64"), UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("aes", "xts-plain64-"), UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("aes", "xts"), UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("aes", ""), UnsupportedAlgorithm);
  EXPECT_THROW(ParseCipherSpec("", ""), UnsupportedAlgorithm);
}

}  // namespace
}  // namespace pellucid::crypto
