#include "tools/copy_pieces.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/tools/interval_device.h"

namespace pellucid::cli {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kNoLimit = UINT64_MAX;

std::vector<Piece> AllPieces(BlockDevice& device, ByteRange range,
                             uint64_t max_hole = kNoLimit) {
  PieceSource source(device, range, {.max_hole = max_hole});
  std::vector<Piece> pieces;
  for (Piece piece; source.Next(piece);) pieces.push_back(piece);
  return pieces;
}

// Pieces follow one another without a gap, in their sequence, none too long,
// and their data lies within them.
void CheckCover(const std::vector<Piece>& pieces, ByteRange range) {
  uint64_t next = range.offset;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    EXPECT_EQ(piece.sequence, i);
    EXPECT_EQ(piece.range.offset, next);
    EXPECT_GT(piece.range.length, 0u);
    if (!piece.is_hole()) {
      EXPECT_LE(piece.range.length, PieceCut::kUsualLength);
    }
    uint64_t data_end = piece.range.offset;
    for (const ByteRange& data : piece.data) {
      EXPECT_GE(data.offset, data_end);
      data_end = data.end();
    }
    EXPECT_LE(data_end, piece.range.end());
    next = piece.range.end();
  }
  EXPECT_EQ(next, range.end());
}

TEST(CopyPieces, AnEmptyRangeHasNone) {
  IntervalDevice device(10 * kMiB);
  EXPECT_TRUE(AllPieces(device, {.offset = 5, .length = 0}).empty());
  EXPECT_EQ(device.lookups(), 0u);
}

TEST(CopyPieces, DataIsCutAtMultiplesOfTheLongestPiece) {
  IntervalDevice device(10 * kMiB);
  device.AddData(0, 10 * kMiB);
  const ByteRange range = {.offset = kMiB / 2, .length = 3 * kMiB};
  const std::vector<Piece> pieces = AllPieces(device, range);
  CheckCover(pieces, range);
  ASSERT_EQ(pieces.size(), 4u);
  EXPECT_EQ(pieces[0].range.length, kMiB / 2);
  EXPECT_EQ(pieces[1].range.length, kMiB);
}

TEST(CopyPieces, AHoleOfTebibytesIsOnePiece) {
  constexpr uint64_t kSize = uint64_t{8} << 40;
  IntervalDevice device(kSize);
  device.AddData(5 * kMiB, 5 * kMiB + 100);
  const ByteRange range = {.offset = 0, .length = kSize};
  const std::vector<Piece> pieces = AllPieces(device, range);
  CheckCover(pieces, range);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_TRUE(pieces[0].is_hole());
  EXPECT_EQ(pieces[1].range.length, 100u);
  EXPECT_TRUE(pieces[2].is_hole());
  EXPECT_EQ(device.lookups(), 3u);
}

TEST(CopyPieces, HolesAreNoLongerThanAsked) {
  IntervalDevice device(100 * kMiB);
  const ByteRange range = {.offset = 0, .length = 100 * kMiB};
  const std::vector<Piece> pieces = AllPieces(device, range, 16 * kMiB);
  CheckCover(pieces, range);
  EXPECT_EQ(pieces.size(), 7u);
}

TEST(CopyPieces, SmallHolesAreReadAcrossLargerOnesAreNot) {
  IntervalDevice device(kMiB);
  device.AddData(0, 512);
  device.AddData(1024, 2048);
  device.AddData(65536, 70000);
  const ByteRange range = {.offset = 0, .length = kMiB};
  const std::vector<Piece> pieces = AllPieces(device, range);
  CheckCover(pieces, range);
  ASSERT_EQ(pieces.size(), 2u);
  ASSERT_EQ(pieces[0].data.size(), 2u);
  EXPECT_EQ(pieces[0].data[0].length, 2048u);
  EXPECT_EQ(pieces[0].data[1].offset, 65536u);
  EXPECT_EQ(pieces[0].data[1].length, 70000u - 65536u);
  EXPECT_TRUE(pieces[1].is_hole());
}

TEST(CopyPieces, WholeWindowsBeginAtMultiplesFromTheBeginningOfTheRange) {
  constexpr uint64_t kWindow = 3 * kMiB;
  IntervalDevice device(40 * kMiB);
  device.AddData(kMiB, kMiB + 100);
  device.AddData(20 * kMiB, 20 * kMiB + 1);
  for (const uint64_t cut : {uint64_t{0}, uint64_t{65536}}) {
    device.CutExtentsAt(cut);
    const ByteRange range = {.offset = 777, .length = 39 * kMiB};
    PieceSource source(
        device, range,
        {.max_length = kWindow, .max_hole = 16 * kMiB, .whole_windows = true});
    uint64_t next = range.offset;
    uint64_t data_length = 0;
    for (Piece piece; source.Next(piece);) {
      EXPECT_EQ(piece.range.offset, next);
      EXPECT_EQ((piece.range.offset - range.offset) % kWindow, 0u);
      EXPECT_LE(piece.range.length, piece.is_hole() ? 16 * kMiB : kWindow);
      for (const ByteRange& data : piece.data) data_length += data.length;
      next = piece.range.end();
    }
    EXPECT_EQ(next, range.end());
    EXPECT_EQ(data_length, 101u);
  }
}

TEST(CopyPieces, ExtentsThatEndEarlyAreJoined) {
  IntervalDevice device(4 * kMiB);
  device.AddData(kMiB, 2 * kMiB);
  device.CutExtentsAt(4096);
  const ByteRange range = {.offset = 0, .length = 4 * kMiB};
  const std::vector<Piece> pieces = AllPieces(device, range);
  CheckCover(pieces, range);
  uint64_t data_length = 0;
  for (const Piece& piece : pieces) {
    for (const ByteRange& data : piece.data) data_length += data.length;
    EXPECT_LE(piece.data.size(), 1u);
  }
  EXPECT_EQ(data_length, kMiB);
}

}  // namespace
}  // namespace pellucid::cli
