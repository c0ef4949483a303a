#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/noise_probe.h"
#include "engine/plaintext_remains.h"
#include "tests/engine/host_files_fixture.h"

namespace pellucid {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr auto kPayload = PlaintextRemains::Place::kPayload;
constexpr size_t kSector = 512;
constexpr size_t kMiB = size_t{1} << 20;

void Fill(Bytes& bytes, size_t offset, size_t length, char with) {
  std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(offset), length,
              static_cast<std::byte>(with));
}

std::vector<std::pair<uint64_t, uint64_t>> Places(
    const PlaintextRemains& remains) {
  std::vector<std::pair<uint64_t, uint64_t>> places;
  for (const auto& range : remains.ranges) {
    places.emplace_back(range.offset, range.length);
  }
  return places;
}

TEST(RemainsCollectorTest, NoiseIsNoRemain) {
  RemainsCollector collector;
  for (uint64_t seed = 0; seed < 64; ++seed) {
    collector.Note(seed * kMiB, Noise(kMiB, seed), kPayload);
  }
  const PlaintextRemains remains = collector.Take();
  EXPECT_EQ(remains.examined_bytes, 64 * kMiB);
  EXPECT_EQ(remains.plain_bytes, 0U);
  EXPECT_EQ(remains.zero_bytes, 0U);
  // Not by far: each block that LooksLikeNoise() has doubts about is looked at
  // sector by sector.
  for (uint64_t seed = 0; seed < 20'000; ++seed) {
    EXPECT_FALSE(CannotBeNoise(Noise(kSector, seed))) << seed;
  }
}

// Noise may look a little odd, on a disk of billions of sectors.
TEST(RemainsCollectorTest, ADoubtIsNoRemain) {
  Bytes bytes = Noise(4096, 1);
  for (size_t i = 0; i < 20; ++i) bytes[i * 25] = std::byte{0xaa};
  EXPECT_FALSE(LooksLikeNoise(std::span(bytes).first(kSector)));
  // And the block with it.
  for (size_t i = 20; i < 60; ++i) bytes[i * 64] = std::byte{0xaa};
  EXPECT_FALSE(LooksLikeNoise(bytes));
  RemainsCollector collector;
  collector.Note(0, bytes, kPayload);
  EXPECT_EQ(collector.Take().plain_bytes, 0U);
}

TEST(RemainsCollectorTest, ASingleSectorIsFound) {
  for (const char with : {'a', '\xff', '\1'}) {
    Bytes bytes = Noise(kMiB, 1);
    Fill(bytes, 100 * kSector, kSector, with);
    RemainsCollector collector;
    collector.Note(3 * kMiB, bytes, kPayload);
    const PlaintextRemains remains = collector.Take();
    EXPECT_THAT(Places(remains),
                ElementsAre(std::pair(3 * kMiB + 100 * kSector, kSector)));
    EXPECT_EQ(remains.plain_bytes, kSector);
    EXPECT_EQ(remains.ranges[0].kind,
              with == 'a' ? ByteKind::kText : ByteKind::kMixed);
  }
}

TEST(RemainsCollectorTest, FewZerosDoNotEndARangeAndNoiseDoes) {
  Bytes bytes = Noise(kMiB, 1);
  Fill(bytes, 8192, 200 << 10, '\0');
  Fill(bytes, 8192, kSector, 'a');
  Fill(bytes, 8192 + (60 << 10), kSector, 'b');
  Fill(bytes, 8192 + (130 << 10), kSector, 'c');
  Fill(bytes, 400 << 10, kSector, 'd');
  Fill(bytes, (400 << 10) + 2 * kSector, kSector, 'e');
  RemainsCollector collector;
  collector.Note(0, bytes, kPayload);
  const PlaintextRemains remains = collector.Take();
  EXPECT_THAT(Places(remains),
              ElementsAre(std::pair(8192, (60 << 10) + kSector),
                          std::pair(8192 + (130 << 10), kSector),
                          std::pair(400 << 10, kSector),
                          std::pair((400 << 10) + 2 * kSector, kSector)));
  EXPECT_EQ(remains.plain_bytes, 5 * kSector);
  EXPECT_EQ(remains.zero_bytes, (200 << 10) - 3 * kSector);
}

// Threads deliver pieces as they come.
TEST(RemainsCollectorTest, TheOrderAndTheThreadMakeNoDifference) {
  constexpr size_t kPiece = 65536;
  Bytes bytes = Noise(16 * kMiB, 1);
  Fill(bytes, 3 * kMiB + 1024, 5 * kMiB, 't');
  Fill(bytes, 10 * kMiB, kPiece, 't');
  std::vector<size_t> pieces;
  for (size_t at = 0; at < bytes.size(); at += kPiece) pieces.push_back(at);
  std::ranges::shuffle(pieces, std::mt19937(7));
  RemainsCollector collector;
  std::vector<std::thread> threads;
  for (size_t thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      for (size_t i = thread; i < pieces.size(); i += 3) {
        collector.Note(pieces[i], std::span(bytes).subspan(pieces[i], kPiece),
                       kPayload);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(Places(collector.Take()),
              ElementsAre(std::pair(3 * kMiB + 1024, 5 * kMiB),
                          std::pair(10 * kMiB, kPiece)));
}

TEST(RemainsCollectorTest, PlacesThatDifferStayApart) {
  const Bytes text(4096, std::byte{'x'});
  RemainsCollector collector;
  collector.Note(0, text, PlaintextRemains::Place::kInFront);
  collector.Note(4096, text, kPayload);
  collector.Note(8192, text, PlaintextRemains::Place::kBehind);
  EXPECT_THAT(collector.Take().ranges, SizeIs(3));
}

TEST(RemainsCollectorTest, RangesAreBoundedAndTheirBytesCounted) {
  const Bytes noise = Noise(8 * kMiB, 1);
  Bytes bytes = noise;
  for (size_t at = 0; at < bytes.size(); at += 1024) {
    Fill(bytes, at, kSector, 'x');
  }
  RemainsCollector collector;
  // The end first.
  collector.Note(8 * kMiB, bytes, kPayload);
  collector.Note(0, bytes, kPayload);
  const PlaintextRemains remains = collector.Take();
  EXPECT_EQ(remains.plain_bytes, 8 * kMiB);
  EXPECT_TRUE(remains.has_more_ranges);
  ASSERT_THAT(remains.ranges, SizeIs(RemainsCollector::kMaxRanges));
  for (size_t i = 0; i < remains.ranges.size(); ++i) {
    EXPECT_EQ(remains.ranges[i].offset, i * 1024);
  }
  EXPECT_THAT(collector.Take().ranges, IsEmpty());
}

TEST(RemainsCollectorTest, SignaturesAreNamedOnceEach) {
  Bytes bytes = Noise(kMiB, 1);
  Fill(bytes, 0, 512 << 10, 't');
  const auto put = [&](size_t at, std::string_view text) {
    std::ranges::copy(std::as_bytes(std::span(text)),
                      bytes.begin() + static_cast<ptrdiff_t>(at));
  };
  // In any sector, and a copy of the first.
  const std::vector<std::pair<size_t, std::string_view>> superblocks = {
      {3 * kSector, "0123456789abcdef"},
      {100 * kSector, "0123456789abcdeX"},
      {200 * kSector, "0123456789abcdef"},
      {250 * kSector, "0123456789abcdeY"}};
  for (const auto& [at, uuid] : superblocks) {
    put(at, "XFSB");
    put(at + 32, uuid);
    put(at + 108, std::string_view("label\0", 6));
  }
  // In two pieces, the later one first.
  RemainsCollector collector;
  constexpr size_t kCut = 128 * kSector;
  collector.Note(kMiB + kCut, std::span(bytes).subspan(kCut), kPayload);
  collector.Note(kMiB, std::span(bytes).first(kCut), kPayload);
  const PlaintextRemains remains = collector.Take();
  ASSERT_THAT(remains.ranges, SizeIs(1));
  const auto& signatures = remains.ranges[0].signatures;
  ASSERT_THAT(signatures, SizeIs(3));
  EXPECT_EQ(signatures[0].offset, kMiB + 3 * kSector);
  EXPECT_EQ(signatures[0].volume.type, "xfs");
  EXPECT_EQ(signatures[0].volume.label, "label");
  EXPECT_EQ(signatures[2].offset, kMiB + 250 * kSector);
  EXPECT_EQ(signatures[1].offset, kMiB + 100 * kSector);
}

}  // namespace
}  // namespace pellucid
