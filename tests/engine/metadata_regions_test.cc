#include "engine/qcow2/metadata_regions.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kCluster = 512;
constexpr uint64_t kCopied = uint64_t{1} << 63;

// An image with one of each table, all apart from each other: none but these
// clusters are metadata.
class MetadataRegionsTest : public ::testing::Test {
 protected:
  enum Place : uint64_t {
    kHeader = 0,
    kL1 = 2,  // Two clusters.
    kL2 = 5,
    kOtherL2 = 7,
    kRefcountTable = 9,
    kRefcountBlock = 11,
    kOtherRefcountBlock = 13,
    kLuksHeader = 15,  // Three clusters.
    kSnapshotTable = 19,
    kSnapshotL1 = 21,
    kClusters = 25,
  };

  MetadataRegionsTest() {
    header_.version = 3;
    header_.cluster_bits = 9;
    header_.refcount_order = 4;
    header_.l1_size = kCluster / 8 + 1;
    header_.l1_table_offset = kL1 * kCluster;
    header_.refcount_table_offset = kRefcountTable * kCluster;
    header_.refcount_table_clusters = 1;
    header_.crypto_header = {.offset = kLuksHeader * kCluster,
                             .length = 2 * kCluster + 1};
    header_.snapshots_offset = kSnapshotTable * kCluster;
    l1_.resize(header_.l1_size);
    l1_.front() = kL2 * kCluster | kCopied;
    l1_.back() = kOtherL2 * kCluster;
    Snapshot snapshot;
    snapshot.info.id = "7";
    snapshot.entry_offset = kSnapshotTable * kCluster;
    snapshot.l1_table_offset = kSnapshotL1 * kCluster;
    snapshot.l1_size = 3;
    snapshots_ = {snapshot};
    file_.resize(kClusters * kCluster);
    StoreNumber(file_, header_.refcount_table_offset, 8,
                kRefcountBlock * kCluster);
    StoreNumber(file_, header_.refcount_table_offset + kCluster - 8, 8,
                kOtherRefcountBlock * kCluster);
  }

  MetadataRegions Make() {
    MemoryDevice file(file_, 1);
    return MetadataRegions(file, "disk.qcow2", header_, l1_, snapshots_);
  }

  static std::vector<uint64_t> Metadata() {
    return {kHeader,         kL1,
            kL1 + 1,         kL2,
            kOtherL2,        kRefcountTable,
            kRefcountBlock,  kOtherRefcountBlock,
            kLuksHeader,     kLuksHeader + 1,
            kLuksHeader + 2, kSnapshotTable,
            kSnapshotL1};
  }

  Header header_;
  std::vector<uint64_t> l1_;
  std::vector<Snapshot> snapshots_;
  Bytes file_;
};

// The numbers of the clusters that are metadata, by their first and last bytes.
std::vector<uint64_t> Found(const MetadataRegions& regions, uint64_t clusters) {
  std::vector<uint64_t> found;
  for (uint64_t i = 0; i < clusters; ++i) {
    const bool first = regions.Overlap(i * kCluster, 1);
    EXPECT_EQ(regions.Overlap((i + 1) * kCluster - 1, 1), first) << i;
    EXPECT_EQ(regions.Overlap(i * kCluster, kCluster), first) << i;
    if (first) found.push_back(i);
  }
  return found;
}

TEST_F(MetadataRegionsTest, EveryTableIsKnownInWholeClusters) {
  const MetadataRegions regions = Make();
  EXPECT_EQ(Found(regions, kClusters), Metadata());
  // A range that only reaches one of them, or has one within it.
  EXPECT_FALSE(regions.Overlap((kSnapshotL1 + 1) * kCluster, UINT64_MAX / 2));
  EXPECT_TRUE(regions.Overlap((kHeader + 1) * kCluster, kCluster + 1));
  EXPECT_FALSE(regions.Overlap((kHeader + 1) * kCluster, kCluster));
  EXPECT_TRUE(regions.Overlap(0, UINT64_MAX / 2));
}

TEST_F(MetadataRegionsTest, ImageMayHaveNoneOfTheOptionalTables) {
  header_.crypto_header.reset();
  header_.snapshots_offset = 0;
  snapshots_.clear();
  l1_.assign(l1_.size(), 0);
  StoreNumber(file_, header_.refcount_table_offset, 8, 0);
  EXPECT_EQ(Found(Make(), kClusters),
            (std::vector<uint64_t>{kHeader, kL1, kL1 + 1, kRefcountTable,
                                   kOtherRefcountBlock}));
}

TEST_F(MetadataRegionsTest, WhatIsDroppedIsMetadataNoLonger) {
  MetadataRegions regions = Make();
  regions.Drop(kL2 * kCluster, kCluster);
  regions.Drop(kOtherRefcountBlock * kCluster, kCluster);
  regions.Drop((kHeader + 1) * kCluster, kCluster);  // There is nothing.
  std::vector<uint64_t> left = Metadata();
  std::erase(left, kL2);
  std::erase(left, kOtherRefcountBlock);
  EXPECT_EQ(Found(regions, kClusters), left);
}

TEST_F(MetadataRegionsTest, RefusalNamesTheFileThePlaceAndWhatIsWrittenThere) {
  const MetadataRegions regions = Make();
  const auto check = [&](uint64_t begin, uint64_t length) {
    regions.Check(begin, length, "guest data");
  };
  EXPECT_NO_THROW(check((kL2 + 1) * kCluster, kCluster));
  EXPECT_THAT(ThrownText<CorruptImage>([&] { check(kL2 * kCluster + 100, 1); }),
              HasSubstr(fmt::format("disk.qcow2: guest data at offset {} would "
                                    "overwrite the image's own tables",
                                    kL2 * kCluster + 100)));
}

TEST_F(MetadataRegionsTest, AnyTwoTablesInOnePlaceAreRefused) {
  const std::vector<std::function<void(uint64_t)>> tables = {
      [&](uint64_t at) { header_.l1_table_offset = at; },
      [&](uint64_t at) { l1_.front() = at | kCopied; },
      [&](uint64_t at) { l1_.back() = at; },
      [&](uint64_t at) { header_.crypto_header->offset = at; },
      [&](uint64_t at) {
        header_.snapshots_offset = snapshots_[0].entry_offset = at;
      },
      [&](uint64_t at) { snapshots_[0].l1_table_offset = at; },
      [&](uint64_t at) {
        StoreNumber(file_, header_.refcount_table_offset, 8, at);
      }};
  const Header header = header_;
  const std::vector<uint64_t> l1 = l1_;
  const std::vector<Snapshot> snapshots = snapshots_;
  const Bytes file = file_;
  for (size_t i = 0; i < tables.size(); ++i) {
    for (const uint64_t place :
         {kL1 + uint64_t{1}, uint64_t{kOtherRefcountBlock},
          kLuksHeader + uint64_t{2}, uint64_t{kRefcountTable}}) {
      SCOPED_TRACE(fmt::format("table {} in cluster {}", i, place));
      // Not a table over itself.
      if ((i == 0 && place == kL1 + 1) || (i == 3 && place > kLuksHeader)) {
        continue;
      }
      header_ = header;
      l1_ = l1;
      snapshots_ = snapshots;
      file_ = file;
      tables[i](place * kCluster);
      EXPECT_THAT(ThrownText<CorruptImage>([&] { Make(); }),
                  HasSubstr("overlap at offset"));
    }
  }
}

TEST_F(MetadataRegionsTest, SnapshotsL1TableMustBeAlignedAndInTheFile) {
  Snapshot& snapshot = snapshots_[0];
  for (const uint64_t offset : {uint64_t{0}, kSnapshotL1 * kCluster + 8,
                                kClusters * kCluster, ~(kCluster - 1)}) {
    snapshot.l1_table_offset = offset;
    EXPECT_THAT(ThrownText<CorruptImage>([&] { Make(); }),
                HasSubstr(fmt::format("l1_table_offset (byte {}) of snapshot 7",
                                      snapshot.entry_offset)))
        << offset;
  }
  snapshot.l1_table_offset = kSnapshotL1 * kCluster;
  // To the end of the file, and one entry more.
  const auto most =
      static_cast<uint32_t>((kClusters - kSnapshotL1) * kCluster / 8);
  snapshot.l1_size = most;
  EXPECT_NO_THROW(Make());
  for (const uint32_t entries : {most + 1, UINT32_MAX}) {
    snapshot.l1_size = entries;
    EXPECT_THAT(ThrownText<CorruptImage>([&] { Make(); }),
                HasSubstr("of snapshot 7"))
        << entries;
  }
}

}  // namespace
}  // namespace pellucid::qcow2
