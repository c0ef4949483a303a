#include "engine/qcow2/refcounts.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/growing_memory_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using ::testing::HasSubstr;

// The least that Refcounts look at: a header cluster, the refcount table and
// its first block, which counts these and the L1 table.
constexpr uint64_t kTable = 1;  // Clusters.
constexpr uint64_t kBlock = 2;
constexpr uint64_t kL1 = 3;
constexpr uint64_t kUsed = 4;

class RefcountsTest : public ::testing::Test {
 protected:
  // `table_clusters` of a longer table stand behind everything else, and are
  // not counted.
  void Make(uint32_t order, uint32_t cluster_bits = 9,
            uint64_t table_clusters = 1) {
    header_.version = 3;
    header_.cluster_bits = cluster_bits;
    header_.refcount_order = order;
    header_.l1_size = 1;
    const uint64_t cluster = header_.cluster_size();
    header_.l1_table_offset = kL1 * cluster;
    header_.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
    header_.refcount_table_offset =
        (table_clusters == 1 ? kTable : kUsed) * cluster;
    const uint64_t used = table_clusters == 1 ? kUsed : kUsed + table_clusters;
    Bytes content(used * cluster);
    StoreNumber(content, header_.refcount_table_offset, 8, kBlock * cluster);
    Open(std::move(content));
    for (uint64_t i = 0; i < kUsed; ++i) refcounts_->Set(i, 1);
    Write();
  }

  void Open(Bytes content) {
    refcounts_.reset();
    file_ = std::make_unique<GrowingMemoryDevice>(std::move(content));
    regions_.emplace(*file_, "disk.qcow2", header_, std::vector<uint64_t>{0},
                     std::vector<Snapshot>{});
    refcounts_.emplace(*file_, "disk.qcow2", header_, *regions_);
  }

  // Opens again what the file holds now, its header fields too if the table
  // has moved.
  void Reopen() {
    const Bytes content = file_->bytes();
    const uint64_t table = LoadNumber(content, 48, 8);
    if (table != 0) {
      header_.refcount_table_offset = table;
      header_.refcount_table_clusters =
          static_cast<uint32_t>(LoadNumber(content, 56, 4));
    }
    Open(content);
  }

  void Write() {
    const auto changes = refcounts_->TakeChanges();
    for (const auto& change : changes) {
      file_->Write(change.offset, change.bytes);
    }
    refcounts_->ChangesWritten(changes);
  }

  // Every table and block that is in use is counted once.
  void ExpectCountsItself() {
    const Bytes content = file_->bytes();
    const uint64_t cluster = header_.cluster_size();
    const uint64_t entries = header_.refcount_table_clusters * cluster / 8;
    for (uint64_t i = 0; i < header_.refcount_table_clusters; ++i) {
      EXPECT_EQ(refcounts_->Get(header_.refcount_table_offset / cluster + i),
                1U);
    }
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t block =
          LoadNumber(content, header_.refcount_table_offset + i * 8, 8);
      if (block != 0) {
        EXPECT_EQ(refcounts_->Get(block / cluster), 1U);
      }
    }
  }

  Header header_;
  std::unique_ptr<GrowingMemoryDevice> file_;
  std::optional<MetadataRegions> regions_;
  std::optional<Refcounts> refcounts_;
};

TEST_F(RefcountsTest, EveryWidthHoldsItsGreatestAndNothingAbove) {
  for (uint32_t order = 0; order <= 6; ++order) {
    SCOPED_TRACE(order);
    Make(order);
    const uint64_t greatest =
        order == 6 ? UINT64_MAX : (uint64_t{1} << (1U << order)) - 1;
    ASSERT_EQ(refcounts_->greatest(), greatest);
    refcounts_->Set(21, greatest);
    refcounts_->Set(22, 1);
    refcounts_->Set(20, 0);
    if (order != 6) {
      EXPECT_THROW(refcounts_->Set(21, greatest + 1), CorruptImage);
    }
    Write();
    Reopen();
    EXPECT_EQ(refcounts_->Get(19), 0U);
    EXPECT_EQ(refcounts_->Get(20), 0U);
    EXPECT_EQ(refcounts_->Get(21), greatest);
    EXPECT_EQ(refcounts_->Get(22), 1U);
    EXPECT_EQ(refcounts_->Get(23), 0U);
    EXPECT_EQ(refcounts_->Decrement(21), greatest == 1);
    EXPECT_EQ(refcounts_->Get(21), greatest - 1);
  }
}

TEST_F(RefcountsTest, NarrowCountsBeginInTheLowestBitsOfAByte) {
  Make(1);  // Two bits.
  refcounts_->Set(8, 3);
  refcounts_->Set(10, 2);
  Write();
  EXPECT_EQ(file_->bytes()[kBlock * 512 + 2], std::byte{0b00'10'00'11});
}

TEST_F(RefcountsTest, NeighboursComeOneBehindTheOther) {
  Make(4);
  EXPECT_EQ(refcounts_->Allocate(1).first, kUsed);
  EXPECT_EQ(refcounts_->Allocate(1).first, kUsed + 1);
  const HostClusters run = refcounts_->Allocate(5);
  EXPECT_EQ(run.first, kUsed + 2);
  EXPECT_EQ(run.count, 5U);
  for (uint64_t i = 0; i < 7; ++i) EXPECT_EQ(refcounts_->Get(kUsed + i), 1U);
  EXPECT_EQ(refcounts_->Get(kUsed + 7), 0U);
}

TEST_F(RefcountsTest, LowestFreeClusterIsTakenFirst) {
  Make(4);
  refcounts_->Allocate(20);
  EXPECT_TRUE(refcounts_->Decrement(9));
  EXPECT_TRUE(refcounts_->Decrement(6));
  const HostClusters first = refcounts_->Allocate(3);
  EXPECT_EQ(first.first, 6U);
  EXPECT_EQ(first.count, 1U);
  EXPECT_EQ(refcounts_->Allocate(3).first, 9U);
  EXPECT_EQ(refcounts_->Allocate(3).first, kUsed + 20);
}

TEST_F(RefcountsTest, ExactRunGoesBehindGapsThatStayFree) {
  Make(4);
  refcounts_->Allocate(30);
  for (const uint64_t gap : {6U, 10U, 11U, 20U, 21U, 22U})
    refcounts_->Decrement(gap);
  const HostClusters run = refcounts_->AllocateExactly(4);
  EXPECT_EQ(run.first, kUsed + 30);
  EXPECT_EQ(run.count, 4U);
  for (const uint64_t gap : {6U, 10U, 11U, 20U, 21U, 22U}) {
    EXPECT_EQ(refcounts_->Get(gap), 0U);
  }
  EXPECT_EQ(refcounts_->AllocateExactly(3).first, 20U);
  EXPECT_EQ(refcounts_->AllocateExactly(2).first, 10U);
  EXPECT_EQ(refcounts_->AllocateExactly(1).first, 6U);
}

// A block of 512 bytes with 16 bits counts 256 clusters.
TEST_F(RefcountsTest, ExactRunCrossesBlocks) {
  Make(4);
  const HostClusters run = refcounts_->AllocateExactly(600);
  EXPECT_EQ(run.count, 600U);
  Write();
  Reopen();
  for (uint64_t i = 0; i < 600; ++i) {
    ASSERT_EQ(refcounts_->Get(run.first + i), 1U);
  }
  ExpectCountsItself();
}

TEST_F(RefcountsTest, FailedExactRunGivesBackWhatItHad) {
  Make(4);
  refcounts_->Allocate(250 - kUsed);
  file_->FailWrite(0);  // Of the second block.
  EXPECT_THROW(refcounts_->AllocateExactly(20), IoError);
  for (uint64_t i = 250; i < 256; ++i) EXPECT_EQ(refcounts_->Get(i), 0U);
  EXPECT_EQ(refcounts_->AllocateExactly(6).first, 250U);
}

TEST_F(RefcountsTest, ReleasedClustersAreFoundAgain) {
  Make(4);
  const HostClusters run = refcounts_->Allocate(9);
  refcounts_->Release(run);
  EXPECT_EQ(refcounts_->Allocate(9).first, run.first);
}

// 64 bits: a block counts 64 clusters, the table has room for 64 blocks.
TEST_F(RefcountsTest, TableGrowsAndItsOldPlaceIsUsedAgain) {
  Make(6);
  bool old_place_was_used = false;
  for (int i = 0; i < 5000; ++i) {
    old_place_was_used |= refcounts_->Allocate(1).first == kTable;
  }
  Write();
  EXPECT_NE(LoadNumber(file_->bytes(), 48, 8), kTable * 512);
  EXPECT_GT(LoadNumber(file_->bytes(), 56, 4), 1U);
  Reopen();
  ExpectCountsItself();
  EXPECT_TRUE(old_place_was_used);
}

// What was allocated as data is not, and neither is the old table's place.
TEST_F(RefcountsTest, NewBlocksAndTablesAreKnownAsTables) {
  Make(6);
  std::set<uint64_t> data;
  for (int i = 0; i < 5000; ++i) data.insert(refcounts_->Allocate(1).first);
  const Bytes content = file_->bytes();
  const uint64_t table = LoadNumber(content, 48, 8);
  const uint64_t table_clusters = LoadNumber(content, 56, 4);
  std::set<uint64_t> tables = {0, kL1};
  for (uint64_t i = 0; i < table_clusters; ++i) tables.insert(table / 512 + i);
  for (uint64_t i = 0; i < table_clusters * 64; ++i) {
    const uint64_t block = LoadNumber(content, table + i * 8, 8);
    if (block != 0) tables.insert(block / 512);
  }
  ASSERT_GT(tables.size(), 70U);
  for (const uint64_t cluster : tables) {
    EXPECT_TRUE(regions_->Overlap(cluster * 512, 512)) << cluster;
  }
  for (const uint64_t cluster : data) {
    EXPECT_FALSE(regions_->Overlap(cluster * 512, 512)) << cluster;
  }
}

// Whatever write or flush fails on the way, the next attempt succeeds, and at
// any moment the file counts its own tables.
TEST_F(RefcountsTest, GrowthThatFailsIsDoneAgain) {
  for (uint64_t failing = 0; failing < 12; ++failing) {
    SCOPED_TRACE(failing);
    Make(6);
    header_ = {};
    Make(6);
    while (refcounts_->Allocate(64).first + 64 < 64 * 64) {
    }
    Write();
    if (failing % 2 == 0) {
      file_->FailWrite(failing / 2);
    } else {
      file_->FailFlushes(true);
    }
    int errors = 0;
    for (int i = 0; i < 200; ++i) {
      try {
        refcounts_->Allocate(1);
      } catch (const IoError&) {
        ++errors;
        file_->FailFlushes(false);
      }
    }
    EXPECT_EQ(errors, failing / 2 < 4 ? 1 : errors);
    Write();
    Reopen();
    ExpectCountsItself();
  }
}

TEST_F(RefcountsTest, GreatestTableSaysThatThereIsNoSpace) {
  // 8 MiB of table, and no block but the first: the last cluster that it
  // reaches is asked for.
  Make(6, 9, (8 << 20) / 512);
  const uint64_t reach = uint64_t{64} * (1 << 20);
  try {
    refcounts_->Set(reach, 1);
    FAIL();
  } catch (const IoError& error) {
    EXPECT_EQ(error.host_errno(), ENOSPC);
    EXPECT_THAT(error.what(), HasSubstr("larger clusters"));
  }
}

TEST_F(RefcountsTest, CountOfNothingIsNotLowered) {
  Make(4);
  EXPECT_THAT(ThrownText<CorruptImage>([&] { refcounts_->Decrement(77); }),
              HasSubstr(fmt::format("offset {}", 77 * 512)));
}

TEST_F(RefcountsTest, TakenChangesThatWereNotWrittenAreTakenAgain) {
  Make(4);
  EXPECT_EQ(refcounts_->changed_bytes(), 0U);
  refcounts_->Set(100, 5);
  EXPECT_EQ(refcounts_->changed_bytes(), 512U);
  const auto taken = refcounts_->TakeChanges();
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(refcounts_->changed_bytes(), 0U);
  // Changed again while the first change is on its way.
  refcounts_->Set(101, 6);
  refcounts_->ChangesNotWritten(taken);
  EXPECT_EQ(refcounts_->changed_bytes(), 512U);
  Write();
  EXPECT_TRUE(refcounts_->TakeChanges().empty());
  Reopen();
  EXPECT_EQ(refcounts_->Get(100), 5U);
  EXPECT_EQ(refcounts_->Get(101), 6U);
}

TEST_F(RefcountsTest, UnalignedBlockIsNamed) {
  Make(4);
  Bytes content = file_->bytes();
  StoreNumber(content, kTable * 512 + 8, 8, 5300);
  Open(content);
  EXPECT_THAT(ThrownText<CorruptImage>([&] { refcounts_->Get(300); }),
              HasSubstr("refcount table entry 1 (byte 520) is 0x14b4"));
}

}  // namespace
}  // namespace pellucid::qcow2
