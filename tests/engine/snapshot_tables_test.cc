#include "engine/qcow2/metadata_regions.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kCluster = 64 << 10;
constexpr uint64_t kCopied = uint64_t{1} << 63;
// Entries of the longest L1 table.
constexpr uint32_t kMost = (32 << 20) / 8;

// A long file of zeros but for some L1 tables, which counts what is read.
class SparseFile : public BlockDevice {
 public:
  static constexpr uint64_t kFirstTable = uint64_t{1} << 30;
  static constexpr uint64_t kTableBytes = 32 << 20;

  uint64_t size() const override { return uint64_t{1} << 50; }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    read_ += out.size();
    std::ranges::fill(out, std::byte{0});
    if (offset < kFirstTable) return;
    const uint64_t table = (offset - kFirstTable) / kTableBytes;
    for (uint64_t i = 0; i < out.size() / 8; ++i) {
      StoreBigEndian(out, i * 8, tables.at(table)(i));
    }
  }
  Extent ExtentAt(uint64_t, uint64_t max_length) override {
    return {.length = max_length, .is_hole = false};
  }
  uint64_t bytes_read() const { return read_; }

  // The entries of each, by index. Read from the start only.
  std::vector<std::function<uint64_t(uint64_t)>> tables;

 private:
  uint64_t read_ = 0;
};

class SnapshotTablesTest : public ::testing::Test {
 protected:
  SnapshotTablesTest() {
    header_.version = 3;
    header_.cluster_bits = 16;
    header_.refcount_order = 4;
    header_.refcount_table_offset = kCluster;
    header_.refcount_table_clusters = 1;
    header_.l1_table_offset = 2 * kCluster;
    header_.l1_size = 1;
    header_.snapshots_offset = 3 * kCluster;
  }

  void AddSnapshot(uint32_t l1_size,
                   std::function<uint64_t(uint64_t)> entry_at) {
    Snapshot snapshot;
    snapshot.entry_offset = header_.snapshots_offset + snapshots_.size() * 64;
    snapshot.info.id = std::to_string(snapshots_.size() + 1);
    snapshot.l1_table_offset =
        SparseFile::kFirstTable + snapshots_.size() * SparseFile::kTableBytes;
    snapshot.l1_size = l1_size;
    snapshots_.push_back(snapshot);
    file_.tables.push_back(std::move(entry_at));
  }
  // One whose table begins with `entries`.
  void AddSnapshot(uint32_t l1_size, std::vector<uint64_t> entries) {
    AddSnapshot(l1_size, [entries = std::move(entries)](uint64_t i) {
      return i < entries.size() ? entries[i] : 0;
    });
  }

  MetadataRegions& Open() {
    return regions_.emplace(file_, "disk.qcow2", header_,
                            std::vector<uint64_t>{0x50000 | kCopied},
                            snapshots_);
  }

  bool Overlap(uint64_t cluster) const {
    return regions_->Overlap(cluster * kCluster + 100, 1);
  }

  SparseFile file_;
  Header header_;
  std::vector<Snapshot> snapshots_;
  std::optional<MetadataRegions> regions_;
};

TEST_F(SnapshotTablesTest, TablesOfSnapshotsAreReadOnceAndNotAtOpening) {
  AddSnapshot(1 << 20, std::vector<uint64_t>{0x200000, 0, 0x210000});
  AddSnapshot(1 << 20,
              std::vector<uint64_t>{0x200000 | kCopied, 0x220000, 0x210000});
  Open();
  EXPECT_EQ(file_.bytes_read(), kCluster);  // The refcount table.
  EXPECT_FALSE(Overlap(0x20));
  regions_->LoadSnapshotTables();
  const uint64_t loaded = file_.bytes_read();
  EXPECT_EQ(loaded, kCluster + (16 << 20));
  regions_->LoadSnapshotTables();
  EXPECT_EQ(file_.bytes_read(), loaded);

  for (uint64_t cluster = 0x1e; cluster < 0x26; ++cluster) {
    EXPECT_EQ(Overlap(cluster), cluster >= 0x20 && cluster <= 0x22) << cluster;
  }
  EXPECT_TRUE(regions_->Overlap(0x1f0000, 0x10001));
  EXPECT_FALSE(regions_->Overlap(0x1f0000, 0x10000));
  EXPECT_TRUE(regions_->OverlapSnapshotTable(0x22ffff, 1));
  EXPECT_FALSE(regions_->OverlapSnapshotTable(0x230000, 1));
  // That of the active state.
  EXPECT_TRUE(Overlap(5));
  EXPECT_FALSE(regions_->OverlapSnapshotTable(0x50000, 1));
}

TEST_F(SnapshotTablesTest, TablesOfSnapshotsAreNotDropped) {
  AddSnapshot(8, std::vector<uint64_t>{0x50000, 0x210000});
  Open();
  regions_->LoadSnapshotTables();
  regions_->Drop(0x50000, kCluster);
  regions_->Drop(0x210000, kCluster);
  EXPECT_TRUE(Overlap(5));
  EXPECT_TRUE(Overlap(0x21));
}

TEST_F(SnapshotTablesTest, TablesComeAndGo) {
  Open();
  regions_->Add(0x300000, 2 * kCluster);
  EXPECT_FALSE(Overlap(0x2f));
  EXPECT_TRUE(Overlap(0x30));
  EXPECT_TRUE(Overlap(0x31));
  EXPECT_FALSE(Overlap(0x32));
  regions_->Drop(0x300000, kCluster);
  EXPECT_FALSE(Overlap(0x30));
  EXPECT_TRUE(Overlap(0x31));
  // What was there from the start.
  EXPECT_TRUE(Overlap(5));
  regions_->Drop(0x50000, kCluster);
  EXPECT_FALSE(Overlap(5));
  regions_->Add(0x50000, kCluster);
  EXPECT_TRUE(Overlap(5));
}

TEST_F(SnapshotTablesTest, MoreThanCanBeReadInTimeIsRefusedAtOpening) {
  for (int i = 0; i < 16; ++i) AddSnapshot(kMost, std::vector{kCluster});
  Open();
  AddSnapshot(1, std::vector{kCluster});
  EXPECT_THAT(ThrownText<Unsupported>([&] { Open(); }),
              HasSubstr("--read-only"));
  EXPECT_LT(file_.bytes_read(), 1U << 20);
}

TEST_F(SnapshotTablesTest, ManyTablesOfSnapshotsAreRefusedBeforeAChange) {
  // 8 Mi different tables are supported: two L1 tables full of them.
  const auto table = [](uint64_t i) { return (0x10000 + i) * kCluster; };
  AddSnapshot(kMost, table);
  AddSnapshot(kMost, [&](uint64_t i) { return table(kMost + i); });
  // No new ones, in another order.
  AddSnapshot(kMost, [&](uint64_t i) { return table(2 * kMost - 1 - i); });
  Open();
  regions_->LoadSnapshotTables();
  EXPECT_TRUE(regions_->Overlap(table(2 * kMost - 1), 1));
  EXPECT_FALSE(regions_->Overlap(table(2 * kMost), 1));

  AddSnapshot(1, std::vector{kCluster});
  Open();
  EXPECT_THROW(regions_->LoadSnapshotTables(), Unsupported);
}

}  // namespace
}  // namespace pellucid::qcow2
