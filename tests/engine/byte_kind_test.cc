#include "engine/byte_kind.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/engine/host_files_fixture.h"

namespace pellucid {
namespace {

ByteKind KindOfText(const std::string& text) {
  return ByteKindOf(std::as_bytes(std::span(text)));
}

std::string Repeated(const std::string& words, size_t size) {
  std::string text;
  while (text.size() < size) text += words;
  text.resize(size);
  return text;
}

TEST(ByteKind, ZerosAreZeros) {
  EXPECT_EQ(ByteKindOf(Bytes(kByteKindBlock)), ByteKind::kZeros);
  Bytes one(kByteKindBlock);
  one.back() = std::byte{1};
  EXPECT_EQ(ByteKindOf(one), ByteKind::kMixed);
}

TEST(ByteKind, TextIsToldFromTables) {
  const std::string words = "The quick brown fox\n\tjumps. ";
  const std::string text = Repeated(words, kByteKindBlock);
  EXPECT_EQ(KindOfText(text), ByteKind::kText);
  // The end of a file.
  EXPECT_EQ(KindOfText(text.substr(0, 1200) + std::string(2896, '\0')),
            ByteKind::kText);
  std::string wide;
  for (const char c : text.substr(0, 2048)) wide += {c, '\0'};
  EXPECT_EQ(KindOfText(wide), ByteKind::kText);
  // A name among zeros.
  EXPECT_EQ(KindOfText("NTFS" + std::string(4092, '\0')), ByteKind::kMixed);
  // A tenth of the bytes is no text.
  std::string spoilt = text;
  for (size_t i = 0; i < spoilt.size(); i += 10) spoilt[i] = '\x01';
  EXPECT_EQ(KindOfText(spoilt), ByteKind::kMixed);
}

TEST(ByteKind, NoiseIsRandomAndProgramsAreNot) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    EXPECT_EQ(ByteKindOf(Noise(kByteKindBlock, seed)), ByteKind::kRandom);
  }
  const Bytes program = ReadHostFile("/bin/bash");
  size_t random = 0;
  const size_t blocks = program.size() / kByteKindBlock;
  for (size_t i = 0; i < blocks; ++i) {
    const ByteKind kind = ByteKindOf(
        std::span(program).subspan(i * kByteKindBlock, kByteKindBlock));
    random += kind == ByteKind::kRandom ? 1 : 0;
  }
  EXPECT_LT(random, blocks / 20);
}

}  // namespace
}  // namespace pellucid
