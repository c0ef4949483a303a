#include "crypto/anti_forensic.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "crypto/unsupported_algorithm.h"
#include "tests/crypto/reference_vectors.h"
#include "tests/crypto/test_bytes.h"

namespace pellucid::crypto {
namespace {

TEST(AntiForensicMergeTest, AgreesWithReferenceVectors) {
  for (const MergeVector& vector : kMergeVectors) {
    const SecretBytes key = AntiForensicMerge(
        vector.hash, PatternBytes(vector.key_size * vector.stripes),
        vector.stripes);
    EXPECT_EQ(ToHex(key.bytes()), vector.key)
        << vector.hash << ", " << vector.key_size << " bytes";
  }
}

TEST(AntiForensicMergeTest, OneStripeIsTheKeyItself) {
  const Bytes key = RandomBytes(32, 1);
  EXPECT_EQ(ToHex(AntiForensicMerge("sha256", key, 1).bytes()), ToHex(key));
}

TEST(AntiForensicMergeTest, SizesThatDisagreeAreRefused) {
  EXPECT_THROW(AntiForensicMerge("sha1", Bytes(33), 2), std::invalid_argument);
  EXPECT_THROW(AntiForensicMerge("sha1", Bytes(32), 0), std::invalid_argument);
  EXPECT_THROW(AntiForensicMerge("sha1", Bytes(), 4), std::invalid_argument);
}

TEST(AntiForensicMergeTest, UnknownHashIsRefused) {
  EXPECT_THROW(AntiForensicMerge("crc32", Bytes(32), 2), UnsupportedAlgorithm);
}

TEST(AntiForensicSplitTest, MergesBackToTheKey) {
  for (const size_t key_size : std::initializer_list<size_t>{16, 20, 32, 64}) {
    for (const uint32_t stripes : {1U, 2U, 4000U}) {
      const Bytes key = RandomBytes(key_size, 2);
      const SecretBytes split = AntiForensicSplit("sha1", key, stripes);
      ASSERT_EQ(split.size(), key_size * stripes);
      EXPECT_EQ(
          ToHex(AntiForensicMerge("sha1", split.bytes(), stripes).bytes()),
          ToHex(key));
    }
  }
}

TEST(AntiForensicSplitTest, NeverTheSameTwice) {
  const Bytes key = RandomBytes(32, 3);
  EXPECT_NE(ToHex(AntiForensicSplit("sha256", key, 2).bytes()),
            ToHex(AntiForensicSplit("sha256", key, 2).bytes()));
}

TEST(AntiForensicSplitTest, ALostBitLosesTheKey) {
  const Bytes key = RandomBytes(32, 4);
  SecretBytes split = AntiForensicSplit("sha256", key, 10);
  split.bytes()[5] ^= std::byte{1};
  EXPECT_NE(ToHex(AntiForensicMerge("sha256", split.bytes(), 10).bytes()),
            ToHex(key));
}

TEST(AntiForensicSplitTest, NothingToSplitIsRefused) {
  EXPECT_THROW(AntiForensicSplit("sha1", {}, 2), std::invalid_argument);
  EXPECT_THROW(AntiForensicSplit("sha1", Bytes(16), 0), std::invalid_argument);
}

}  // namespace
}  // namespace pellucid::crypto
