#include "engine/qcow2/snapshots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kTable = 512;  // Where the snapshot table begins.
constexpr uint64_t kDiskSize = 1 << 20;

// A file with a snapshot table, entry behind entry.
struct SnapshotTable {
  Bytes bytes = Bytes(kTable);
  Header header;

  SnapshotTable() {
    header.size = kDiskSize;
    header.snapshots_offset = kTable;
  }

  // Appends an entry; gives the byte where it begins.
  uint64_t Add(std::string_view id, std::string_view name,
               const Bytes& extra = {}) {
    const uint64_t at = bytes.size();
    bytes.resize(at + 40);
    StoreNumber(bytes, at, 8, 0x20000);  // l1_table_offset
    StoreNumber(bytes, at + 8, 4, 3);    // l1_size
    StoreNumber(bytes, at + 12, 2, id.size());
    StoreNumber(bytes, at + 14, 2, name.size());
    StoreNumber(bytes, at + 16, 4, 1700000000);
    StoreNumber(bytes, at + 20, 4, 123456789);
    StoreNumber(bytes, at + 24, 8, 42);  // VM clock
    StoreNumber(bytes, at + 32, 4, 7);   // VM state, 32-bit
    StoreNumber(bytes, at + 36, 4, extra.size());
    bytes.insert(bytes.end(), extra.begin(), extra.end());
    for (const std::string_view text : {id, name}) {
      const auto raw = std::as_bytes(std::span(text));
      bytes.insert(bytes.end(), raw.begin(), raw.end());
    }
    bytes.resize((bytes.size() + 7) / 8 * 8);
    ++header.nb_snapshots;
    return at;
  }

  std::vector<Snapshot> Read() const {
    MemoryDevice file(bytes);
    return ReadSnapshots(file, "disk.qcow2", header);
  }
  std::string Corrupt() const {
    return ThrownText<CorruptImage>([&] { Read(); });
  }
};

Bytes ExtraData(uint64_t vm_state_size, uint64_t disk_size) {
  Bytes extra(16);
  StoreNumber(extra, 0, 8, vm_state_size);
  StoreNumber(extra, 8, 8, disk_size);
  return extra;
}

TEST(SnapshotsTest, NoSnapshotsReadNothing) {
  MemoryDevice file(Bytes(16));
  EXPECT_TRUE(ReadSnapshots(file, "disk.qcow2", {}).empty());
  EXPECT_EQ(file.reads(), 0U);
}

TEST(SnapshotsTest, FieldsOfEveryEntryAreRead) {
  SnapshotTable table;
  table.Add("1", "before", ExtraData(uint64_t{1} << 40, 777));
  table.Add("22", "after upgrade");
  const auto snapshots = table.Read();
  ASSERT_EQ(snapshots.size(), 2U);
  EXPECT_EQ(snapshots[0].info.id, "1");
  EXPECT_EQ(snapshots[0].info.name, "before");
  EXPECT_EQ(snapshots[0].l1_table_offset, 0x20000U);
  EXPECT_EQ(snapshots[0].l1_size, 3U);
  EXPECT_EQ(snapshots[0].info.date_seconds, 1700000000);
  EXPECT_EQ(snapshots[0].info.date_nanoseconds, 123456789U);
  EXPECT_EQ(snapshots[0].info.vm_clock_nanoseconds, 42U);
  EXPECT_EQ(snapshots[0].info.vm_state_size, uint64_t{1} << 40);
  EXPECT_EQ(snapshots[0].info.virtual_size, 777U);
  EXPECT_EQ(snapshots[1].info.id, "22");
  EXPECT_EQ(snapshots[1].info.name, "after upgrade");
  EXPECT_EQ(snapshots[1].info.vm_state_size, 7U);
}

TEST(SnapshotsTest, WithoutADiskSizeTheImagesOwnIsUsed) {
  for (const size_t extra : {0U, 1U, 7U, 8U, 15U}) {
    SnapshotTable table;
    table.Add("1", "a", Bytes(extra, std::byte{0x11}));
    EXPECT_EQ(table.Read()[0].info.virtual_size, kDiskSize) << extra;
  }
}

TEST(SnapshotsTest, UnknownExtraDataIsSkipped) {
  SnapshotTable table;
  Bytes extra = ExtraData(0, 99);
  extra.resize(1024, std::byte{0xff});
  table.Add("1", "a", extra);
  table.Add("2", "b");
  const auto snapshots = table.Read();
  EXPECT_EQ(snapshots[0].info.virtual_size, 99U);
  EXPECT_EQ(snapshots[1].info.id, "2");
}

TEST(SnapshotsTest, TooMuchExtraDataIsNamedInTheError) {
  for (const uint64_t size : {uint64_t{1025}, uint64_t{0xffffffff}}) {
    SnapshotTable table;
    table.Add("1", "a");
    const uint64_t second = table.Add("2", "b");
    StoreNumber(table.bytes, second + 36, 4, size);
    table.bytes.resize(table.bytes.size() + 4096);
    EXPECT_THAT(table.Corrupt(),
                HasSubstr("disk.qcow2: snapshot table entry at offset " +
                          std::to_string(second) + ": extra data size (byte " +
                          std::to_string(second + 36) + ") is " +
                          std::to_string(size)));
  }
}

TEST(SnapshotsTest, EntryCutOffAtEachByteIsRefused) {
  SnapshotTable whole;
  whole.Add("1", "a");
  const uint64_t second = whole.Add("23", "name", ExtraData(1, 2));
  const uint64_t end = second + 40 + 16 + 6;  // Without the padding.
  for (uint64_t length = second; length < end; ++length) {
    SnapshotTable cut = whole;
    cut.bytes.resize(length);
    ASSERT_THAT(
        cut.Corrupt(),
        HasSubstr("snapshot table entry at offset " + std::to_string(second) +
                  " ends behind the " + std::to_string(length) + "-byte file"));
  }
  // Padding of the last entry may be missing.
  whole.bytes.resize(end);
  EXPECT_EQ(whole.Read().size(), 2U);
}

TEST(SnapshotsTest, LongestIdAndNameReachBehindTheFileUnlessTheyAreThere) {
  for (const uint64_t field : {12U, 14U}) {
    SnapshotTable table;
    const uint64_t at = table.Add("1", "a");
    StoreNumber(table.bytes, at + field, 2, 0xffff);
    EXPECT_THAT(table.Corrupt(), HasSubstr("ends behind"));
    table.bytes.resize(table.bytes.size() + 0xffff);
    EXPECT_EQ(table.Read().size(), 1U);
  }
}

TEST(SnapshotsTest, CountAboveTheEntriesThatAreThereIsRefused) {
  SnapshotTable table;
  table.Add("1", "a");
  table.header.nb_snapshots = 65536;
  EXPECT_THAT(table.Corrupt(), HasSubstr("ends behind"));
}

TEST(SnapshotsTest, TableOffsetBehindTheFileIsRefused) {
  SnapshotTable table;
  table.Add("1", "a");
  for (const uint64_t offset : {table.bytes.size(), table.bytes.size() - 39,
                                size_t{UINT64_MAX - 511}}) {
    table.header.snapshots_offset = offset;
    EXPECT_THAT(table.Corrupt(), HasSubstr("ends behind"));
  }
}

TEST(SnapshotsTest, TableLongerThanItsLimitIsRefused) {
  // Entries of 128 KiB each, all the same bytes: 513 of them pass 64 MiB.
  SnapshotTable table;
  const std::string longest(0xffff, 'n');
  table.Add(longest, longest);
  const Bytes entry(table.bytes.begin() + static_cast<ptrdiff_t>(kTable),
                    table.bytes.end());
  const size_t fit = (64 << 20) / entry.size();
  for (size_t i = 1; i <= fit; ++i) {
    table.bytes.insert(table.bytes.end(), entry.begin(), entry.end());
  }
  table.header.nb_snapshots = static_cast<uint32_t>(fit);
  EXPECT_EQ(table.Read().size(), fit);
  ++table.header.nb_snapshots;
  EXPECT_THAT(table.Corrupt(), HasSubstr("longer than 64 MiB"));
}

TEST(FindSnapshotTest, IdComesBeforeName) {
  SnapshotTable table;
  table.Add("1", "2");
  table.Add("2", "1");
  table.Add("3", "two words");
  const auto snapshots = table.Read();
  EXPECT_EQ(FindSnapshot(snapshots, "2", "d").info.name, "1");
  EXPECT_EQ(FindSnapshot(snapshots, "two words", "d").info.id, "3");
}

TEST(FindSnapshotTest, MissingOneIsAnsweredWithWhatThereIs) {
  SnapshotTable table;
  table.Add("1", "first");
  table.Add("2", "second");
  const auto snapshots = table.Read();
  EXPECT_THAT(ThrownText<UsageError>(
                  [&] { FindSnapshot(snapshots, "third", "disk.qcow2"); }),
              AllOf(HasSubstr("disk.qcow2: there is no snapshot \"third\""),
                    HasSubstr("1 \"first\", 2 \"second\"")));
  EXPECT_THAT(
      ThrownText<UsageError>([&] { FindSnapshot({}, "third", "disk.qcow2"); }),
      HasSubstr("has none"));
}

TEST(FindSnapshotTest, LongListIsCut) {
  SnapshotTable table;
  for (int i = 0; i < 21; ++i) table.Add(std::to_string(i), "s");
  const auto snapshots = table.Read();
  EXPECT_THAT(ThrownText<UsageError>(
                  [&] { FindSnapshot(snapshots, "x", "disk.qcow2"); }),
              AllOf(HasSubstr("19 \"s\", ..."), Not(HasSubstr("20 \"s\""))));
}

}  // namespace
}  // namespace pellucid::qcow2
