#include "engine/sector_pieces.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/engine/host_files_fixture.h"

namespace pellucid {
namespace {

struct Piece {
  uint64_t offset;
  size_t length;
  bool in_place;  // Straight into the caller's buffer.
};

// Reads [offset, offset + length) of `disk` and notes the pieces asked for.
std::vector<Piece> ReadPieces(const Bytes& disk, uint64_t offset, size_t length,
                              size_t sector_size, Bytes& out) {
  std::vector<Piece> pieces;
  out.assign(length, std::byte{0xee});
  ReadInSectors(
      offset, out, sector_size, [&](uint64_t at, std::span<std::byte> sectors) {
        const bool in_place =
            sectors.data() >= out.data() &&
            sectors.data() + sectors.size() <= out.data() + out.size();
        pieces.push_back({at, sectors.size(), in_place});
        ASSERT_LE(at + sectors.size(), disk.size());
        std::copy_n(disk.begin() + static_cast<ptrdiff_t>(at), sectors.size(),
                    sectors.begin());
      });
  return pieces;
}

class SectorPieces : public testing::TestWithParam<size_t> {};

INSTANTIATE_TEST_SUITE_P(SectorSizes, SectorPieces,
                         testing::Values(512, 1024, 4096));

TEST_P(SectorPieces, EveryAlignmentReadsTheBytesAskedFor) {
  const size_t sector = GetParam();
  const Bytes disk = Noise(5 * sector, 1);
  std::vector<size_t> edges;
  for (size_t n = 0; n <= 4; ++n) {
    for (const size_t at : {n * sector - 1, n * sector, n * sector + 1}) {
      if (at <= 4 * sector) edges.push_back(at);
    }
  }
  Bytes out;
  for (const size_t begin : edges) {
    for (const size_t end : edges) {
      if (end < begin) continue;
      const auto pieces = ReadPieces(disk, begin, end - begin, sector, out);
      ASSERT_EQ(out, Bytes(disk.begin() + static_cast<ptrdiff_t>(begin),
                           disk.begin() + static_cast<ptrdiff_t>(end)))
          << begin << " to " << end;
      for (const Piece& piece : pieces) {
        EXPECT_EQ(piece.offset % sector, 0U);
        EXPECT_EQ(piece.length % sector, 0U);
        EXPECT_NE(piece.length, 0U);
      }
    }
  }
}

TEST_P(SectorPieces, WholeSectorsAreReadInPlaceAndAtOnce) {
  const size_t sector = GetParam();
  const Bytes disk = Noise(5 * sector, 2);
  Bytes out;
  const auto pieces = ReadPieces(disk, sector, 3 * sector, sector, out);
  ASSERT_EQ(pieces.size(), 1U);
  EXPECT_EQ(pieces[0].offset, sector);
  EXPECT_EQ(pieces[0].length, 3 * sector);
  EXPECT_TRUE(pieces[0].in_place);
}

TEST_P(SectorPieces, CutSectorsAtBothEndsStayOutOfTheCallersBuffer) {
  const size_t sector = GetParam();
  const Bytes disk = Noise(5 * sector, 3);
  Bytes out;
  const auto pieces = ReadPieces(disk, sector - 1, 2 * sector + 2, sector, out);
  ASSERT_EQ(pieces.size(), 3U);
  EXPECT_FALSE(pieces[0].in_place);
  EXPECT_TRUE(pieces[1].in_place);
  EXPECT_EQ(pieces[1].length, 2 * sector);
  EXPECT_FALSE(pieces[2].in_place);
  EXPECT_EQ(pieces[2].offset, 3 * sector);
}

TEST_P(SectorPieces, PartOfOneSectorReadsThatSectorOnce) {
  const size_t sector = GetParam();
  const Bytes disk = Noise(5 * sector, 4);
  Bytes out;
  const auto pieces = ReadPieces(disk, 2 * sector + 7, 9, sector, out);
  ASSERT_EQ(pieces.size(), 1U);
  EXPECT_EQ(pieces[0].offset, 2 * sector);
  EXPECT_EQ(pieces[0].length, sector);
}

TEST_P(SectorPieces, AnAlignedEmptyReadTouchesNothing) {
  const size_t sector = GetParam();
  Bytes out;
  EXPECT_TRUE(ReadPieces(Noise(sector, 5), sector, 0, sector, out).empty());
}

}  // namespace
}  // namespace pellucid
