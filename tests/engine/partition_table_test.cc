#include "engine/partition_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libdeflate.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Optional;

constexpr uint64_t kSector = 512;
constexpr uint8_t kLinux = 0x83;
constexpr uint8_t kExtended = 0x05;
constexpr uint8_t kProtective = 0xee;

// Number, offset and size, in sectors.
std::vector<std::array<uint64_t, 3>> Places(const PartitionTable& table) {
  std::vector<std::array<uint64_t, 3>> places;
  for (const Partition& partition : table.partitions) {
    places.push_back({partition.number, partition.offset / kSector,
                      partition.size / kSector});
  }
  return places;
}

std::string AllWarnings(const PartitionTable& table) {
  std::string text;
  for (const std::string& warning : table.warnings) text += warning + "\n";
  return text;
}

void StoreLittle(Bytes& bytes, uint64_t at, unsigned width, uint64_t value) {
  for (unsigned i = 0; i < width; ++i) {
    bytes.at(at + i) = static_cast<std::byte>(value >> (8 * i));
  }
}

// A disk whose boot records are written entry by entry.
class Disk {
 public:
  explicit Disk(uint64_t sectors) : bytes(sectors * kSector) {}

  void Sign(uint64_t sector) {
    StoreLittle(bytes, sector * kSector + 510, 2, 0xaa55);
  }
  void SetEntry(uint64_t sector, unsigned index, uint8_t type, uint32_t first,
                uint32_t sectors) {
    Sign(sector);
    const uint64_t at = sector * kSector + 446 + 16 * index;
    StoreLittle(bytes, at + 4, 1, type);
    StoreLittle(bytes, at + 8, 4, first);
    StoreLittle(bytes, at + 12, 4, sectors);
  }

  // A GPT with one header at `lba`, its entries in front of or behind it.
  void SetGptEntry(uint64_t entries_lba, unsigned index, uint64_t first,
                   uint64_t last, std::u16string_view label) {
    const uint64_t at = entries_lba * kSector + 128 * index;
    StoreLittle(bytes, at, 8, 0x1234);
    StoreLittle(bytes, at + 32, 8, first);
    StoreLittle(bytes, at + 40, 8, last);
    for (size_t i = 0; i < label.size(); ++i) {
      StoreLittle(bytes, at + 56 + 2 * i, 2, label[i]);
    }
  }
  void SetGptHeader(uint64_t lba, uint64_t alternate, uint64_t entries_lba,
                    uint32_t count = 4, uint32_t entry_size = 128) {
    const uint64_t at = lba * kSector;
    std::ranges::copy(std::as_bytes(std::span(std::string_view("EFI PART"))),
                      bytes.begin() + static_cast<ptrdiff_t>(at));
    StoreLittle(bytes, at + 12, 4, 92);
    StoreLittle(bytes, at + 24, 8, lba);
    StoreLittle(bytes, at + 32, 8, alternate);
    StoreLittle(bytes, at + 72, 8, entries_lba);
    StoreLittle(bytes, at + 80, 4, count);
    StoreLittle(bytes, at + 84, 4, entry_size);
    const uint64_t table = entries_lba * kSector;
    const uint64_t length =
        std::min<uint64_t>(uint64_t{count} * entry_size, bytes.size() - table);
    StoreLittle(bytes, at + 88, 4,
                libdeflate_crc32(0, bytes.data() + table, length));
    SealGptHeader(lba);
  }
  void SealGptHeader(uint64_t lba) {
    const uint64_t at = lba * kSector;
    StoreLittle(bytes, at + 16, 4, 0);
    StoreLittle(bytes, at + 16, 4, libdeflate_crc32(0, bytes.data() + at, 92));
  }

  std::optional<PartitionTable> Read() const {
    MemoryDevice device(bytes);
    return ReadPartitionTable(device);
  }

  Bytes bytes;
};

// 1000 sectors with both copies of a GPT of two partitions.
Disk GptDisk() {
  Disk disk(1000);
  disk.SetEntry(0, 0, kProtective, 1, 999);
  for (const uint64_t entries : {2U, 998U}) {
    disk.SetGptEntry(entries, 0, 34, 99, u"boot");
    disk.SetGptEntry(entries, 2, 100, 899, u"W\u00fcrfel \U0001f3b2");
  }
  disk.SetGptHeader(1, 999, 2);
  disk.SetGptHeader(999, 1, 998);
  return disk;
}

TEST(PartitionTableTest, ADiskWithoutATableHasNone) {
  EXPECT_FALSE(Disk(100).Read());
  EXPECT_FALSE(Disk(0).Read());
  Disk only_signed(1);
  only_signed.Sign(0);
  EXPECT_FALSE(only_signed.Read());
  MemoryDevice noise(Noise(1 << 20, 1));
  EXPECT_FALSE(ReadPartitionTable(noise));
}

TEST(PartitionTableTest, AFileSystemThatLooksLikeATableHasNone) {
  // As mkfs.fat makes it for Windows: the whole disk is partition 1.
  Disk fat(100);
  fat.SetEntry(0, 0, 0x0c, 0, 100);
  EXPECT_FALSE(fat.Read());
  // The end of a boot program.
  Disk program(100);
  program.SetEntry(0, 0, kLinux, 1, 50);
  program.bytes[446 + 16] = std::byte{'R'};
  EXPECT_FALSE(program.Read());
}

TEST(PartitionTableTest, PrimaryPartitionsKeepTheirNumbers) {
  Disk disk(1000);
  disk.SetEntry(0, 1, kLinux, 10, 20);
  disk.SetEntry(0, 3, 0x07, 100, 900);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table),
              ElementsAre(ElementsAre(2, 10, 20), ElementsAre(4, 100, 900)));
  EXPECT_EQ(AllWarnings(*table), "");
}

TEST(PartitionTableTest, LogicalPartitionsAreFollowed) {
  Disk disk(1000);
  disk.SetEntry(0, 0, kLinux, 1, 9);
  disk.SetEntry(0, 1, kExtended, 100, 900);
  disk.SetEntry(100, 0, kLinux, 2, 50);
  disk.SetEntry(100, 1, kExtended, 200, 100);
  disk.SetEntry(300, 0, kLinux, 3, 60);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table),
              ElementsAre(ElementsAre(1, 1, 9), ElementsAre(5, 102, 50),
                          ElementsAre(6, 303, 60)));
  EXPECT_EQ(AllWarnings(*table), "");
}

TEST(PartitionTableTest, AChainThatIsALoopEnds) {
  Disk disk(1000);
  disk.SetEntry(0, 1, kExtended, 100, 900);
  disk.SetEntry(100, 0, kLinux, 2, 50);
  disk.SetEntry(100, 1, kExtended, 200, 100);
  disk.SetEntry(300, 0, kLinux, 3, 60);
  disk.SetEntry(300, 1, kExtended, 0, 100);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table),
              ElementsAre(ElementsAre(5, 102, 50), ElementsAre(6, 303, 60)));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("leads back to sector 100"));
}

TEST(PartitionTableTest, AChainThatLeadsAwayEnds) {
  Disk disk(1000);
  disk.SetEntry(0, 1, kExtended, 100, 900);
  disk.SetEntry(100, 0, kLinux, 2, 50);
  disk.SetEntry(100, 1, kExtended, 0xffffffff, 100);
  auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table), ElementsAre(ElementsAre(5, 102, 50)));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("leads to sector 4294967395"));

  disk.SetEntry(100, 1, kExtended, 200, 100);  // Nothing is there.
  table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table), ElementsAre(ElementsAre(5, 102, 50)));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("ends in sector 300"));
}

TEST(PartitionTableTest, AChainOfAnyLengthEnds) {
  Disk disk(4000);
  disk.SetEntry(0, 0, kExtended, 1, 3999);
  for (uint32_t i = 1; i < 3000; ++i) {
    disk.SetEntry(i, 0, kLinux, 1, 1);
    disk.SetEntry(i, 1, kExtended, i, 1);
  }
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_EQ(table->partitions.size(), 256U);
  EXPECT_THAT(AllWarnings(*table), HasSubstr("longer than 256 records"));
}

TEST(PartitionTableTest, PlacesOutsideTheDiskAreCutOrLeftOut) {
  Disk disk(1000);
  disk.SetEntry(0, 0, kLinux, 10, 0xffffffff);
  disk.SetEntry(0, 1, kLinux, 1000, 1);
  disk.SetEntry(0, 2, kLinux, 0xffffffff, 0xffffffff);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table), ElementsAre(ElementsAre(1, 10, 990)));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 1 is cut"));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 2 is left out"));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 3 is left out"));
}

TEST(PartitionTableTest, AGptHasLabels) {
  const auto table = GptDisk().Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table),
              ElementsAre(ElementsAre(1, 34, 66), ElementsAre(3, 100, 800)));
  EXPECT_EQ(table->partitions[0].label, "boot");
  EXPECT_EQ(table->partitions[1].label, "W\u00fcrfel \U0001f3b2");
  EXPECT_EQ(AllWarnings(*table), "");
}

TEST(PartitionTableTest, HalfASurrogatePairInALabelIsReplaced) {
  Disk disk = GptDisk();
  for (const uint64_t entries : {2U, 998U}) {
    disk.SetGptEntry(entries, 0, 34, 99,
                     u"\xd800"
                     u"ab\xdc00");
  }
  disk.SetGptHeader(1, 999, 2);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_EQ(table->partitions[0].label, "\ufffdab\ufffd");
}

TEST(PartitionTableTest, TheBackupIsUsedIfTheFirstCopyIsDamaged) {
  const auto expect_backup = [](const Disk& disk, const std::string& why) {
    const auto table = disk.Read();
    ASSERT_TRUE(table);
    EXPECT_THAT(Places(*table),
                ElementsAre(ElementsAre(1, 34, 66), ElementsAre(3, 100, 800)));
    EXPECT_THAT(AllWarnings(*table), HasSubstr("its backup is"));
    EXPECT_THAT(AllWarnings(*table), HasSubstr(why));
  };
  Disk entries = GptDisk();
  entries.bytes[2 * kSector + 40] ^= std::byte{1};
  expect_backup(entries, "entries with a wrong checksum");
  Disk header = GptDisk();
  header.bytes[kSector + 73] ^= std::byte{1};
  expect_backup(header, "a wrong checksum");
  Disk wiped = GptDisk();
  std::fill_n(wiped.bytes.begin() + kSector, 2 * kSector, std::byte{0});
  expect_backup(wiped, "no signature");
  // The disk was made larger; the protective MBR knows where its end was.
  Disk larger = wiped;
  larger.bytes.resize(2000 * kSector);
  expect_backup(larger, "no signature");
  Disk moved = GptDisk();
  StoreLittle(moved.bytes, kSector + 24, 8, 2);  // my_lba
  moved.SealGptHeader(1);
  expect_backup(moved, "belongs elsewhere");
}

TEST(PartitionTableTest, AGptWithoutAUsableCopyHasNoPartitions) {
  Disk disk = GptDisk();
  disk.bytes[kSector + 16] ^= std::byte{1};
  disk.bytes[999 * kSector + 16] ^= std::byte{1};
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, IsEmpty());
  EXPECT_THAT(AllWarnings(*table), HasSubstr("neither copy can be used"));
}

TEST(PartitionTableTest, AGptWithoutAProtectiveMbrIsSeen) {
  Disk disk = GptDisk();
  std::fill_n(disk.bytes.begin(), kSector, std::byte{0});
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_EQ(table->partitions.size(), 2U);
  EXPECT_THAT(AllWarnings(*table), HasSubstr("protective MBR"));
  // But a backup alone is what remains of a disk that is used otherwise now.
  disk.bytes[kSector] = std::byte{0};
  EXPECT_FALSE(disk.Read());
}

TEST(PartitionTableTest, HostileGptFieldsAreRefused) {
  struct Case {
    uint64_t entries_lba;
    uint32_t count;
    uint32_t size;
    std::string why;
  };
  for (const Case& hostile :
       {Case{2, 4, 0, "entry size 0"}, Case{2, 4, 127, "entry size 127"},
        Case{2, 4, 132, "entry size 132"}, Case{2, 4, 8192, "entry size 8192"},
        Case{2, 0xffffffff, 128, "4294967295 entries"},
        Case{2, 8193, 128, "8193 entries"}, Case{999, 5, 128, "behind the end"},
        Case{1000, 4, 128, "behind the end"},
        Case{~uint64_t{0}, 4, 128, "behind the end"}}) {
    Disk disk = GptDisk();
    disk.bytes[999 * kSector] = std::byte{0};
    const uint64_t at = kSector;
    StoreLittle(disk.bytes, at + 72, 8, hostile.entries_lba);
    StoreLittle(disk.bytes, at + 80, 4, hostile.count);
    StoreLittle(disk.bytes, at + 84, 4, hostile.size);
    disk.SealGptHeader(1);
    const auto table = disk.Read();
    ASSERT_TRUE(table) << hostile.why;
    EXPECT_THAT(table->partitions, IsEmpty()) << hostile.why;
    EXPECT_THAT(AllWarnings(*table), HasSubstr(hostile.why));
  }
  for (const uint32_t header_size : {0U, 91U, 513U, 0xffffffffU}) {
    Disk disk = GptDisk();
    disk.bytes[999 * kSector] = std::byte{0};
    StoreLittle(disk.bytes, kSector + 12, 4, header_size);
    const auto table = disk.Read();
    ASSERT_TRUE(table) << header_size;
    EXPECT_THAT(table->partitions, IsEmpty()) << header_size;
  }
}

TEST(PartitionTableTest, GptPartitionsOutsideTheDiskAreCutOrLeftOut) {
  Disk disk = GptDisk();
  disk.SetGptEntry(2, 0, 500, ~uint64_t{0}, u"");
  disk.SetGptEntry(2, 1, 300, 299, u"");
  disk.SetGptEntry(2, 2, ~uint64_t{0}, ~uint64_t{0}, u"");
  disk.SetGptHeader(1, 999, 2);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table), ElementsAre(ElementsAre(1, 500, 500)));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 1 is cut"));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 2 is left out"));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 3 is left out"));
}

TEST(PartitionTableTest, AReadErrorIsThrown) {
  Disk disk = GptDisk();
  MemoryDevice device(disk.bytes);
  device.FailReads(2 * kSector, 3 * kSector);
  EXPECT_THROW(ReadPartitionTable(device), IoError);
}

// Any one byte changed: no crash, no read outside (MemoryDevice throws), and
// what is found stays on the disk.
TEST(PartitionTableTest, EveryChangedByteIsHarmless) {
  Disk mbr(1000);
  mbr.SetEntry(0, 0, kLinux, 1, 9);
  mbr.SetEntry(0, 1, kExtended, 100, 900);
  mbr.SetEntry(100, 0, kLinux, 2, 50);
  mbr.SetEntry(100, 1, kExtended, 200, 100);
  mbr.SetEntry(300, 0, kLinux, 3, 60);
  Disk gpt = GptDisk();
  for (Disk* disk : {&mbr, &gpt}) {
    for (size_t at = 0; at < 301 * kSector; ++at) {
      if (at == 4 * kSector) at = 100 * kSector;
      if (at == 101 * kSector) at = 300 * kSector;
      for (const int change : {0x01, 0x80, 0xff}) {
        disk->bytes[at] ^= static_cast<std::byte>(change);
        if (at >= kSector && at < kSector + 92) disk->SealGptHeader(1);
        const auto table = disk->Read();
        disk->bytes[at] ^= static_cast<std::byte>(change);
        if (!table) continue;
        for (const Partition& partition : table->partitions) {
          ASSERT_LT(partition.offset, disk->bytes.size()) << at;
          ASSERT_LE(partition.size, disk->bytes.size() - partition.offset);
          ASSERT_GT(partition.size, 0U) << at;
        }
      }
      if (at >= kSector && at < kSector + 92) disk->SealGptHeader(1);
    }
  }
}

// What another program writes, judged by what it says of it itself.
class SfdiskTest : public testing::TestWithParam<std::string> {};

TEST_P(SfdiskTest, IsReadAsItSays) {
  const ScratchFolder folder;
  const auto image = folder / "disk.raw";
  RunTool({"truncate", "-s", "64M", image});
  RunTool({"sfdisk", "--quiet", image}, GetParam());
  std::vector<std::array<uint64_t, 3>> expected;
  std::vector<std::string> labels;
  std::vector<std::string> types;
  const auto dump = nlohmann::json::parse(RunTool({"sfdisk", "--json", image}));
  for (const auto& partition : dump.at("partitiontable").at("partitions")) {
    const std::string type = partition.at("type");
    if (type == "5" || type == "f") continue;
    const std::string node = partition.at("node");
    expected.push_back({std::stoul(node.substr(node.find(".raw") + 4)),
                        partition.at("start").get<uint64_t>(),
                        partition.at("size")});
    labels.push_back(partition.value("name", ""));
    types.push_back(type);
  }
  const auto device = FileDevice::Open(image, FileDevice::Sharing::kExclusive);
  const auto table = ReadPartitionTable(*device);
  ASSERT_TRUE(table);
  EXPECT_EQ(AllWarnings(*table), "");
  EXPECT_EQ(Places(*table), expected);
  for (size_t i = 0; i < labels.size(); ++i) {
    const Partition& partition = table->partitions.at(i);
    EXPECT_EQ(partition.label, labels[i]);
    const bool is_gpt = dump["partitiontable"]["label"] == "gpt";
    EXPECT_EQ(partition.scheme, is_gpt ? "gpt" : "dos");
    // sfdisk writes GUIDs in upper case and numbers without 0x and 0.
    std::ranges::transform(types[i], types[i].begin(), ::tolower);
    EXPECT_EQ(partition.type, is_gpt                 ? types[i]
                              : types[i].size() == 1 ? "0x0" + types[i]
                                                     : "0x" + types[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Tables, SfdiskTest,
    testing::Values("label: dos\nsize=4MiB\nsize=2MiB, type=7\n"
                    "type=5\nsize=3MiB\nsize=5MiB\nsize=1MiB\n",
                    "label: dos\n,10MiB\n,,E\n,4MiB\n,4MiB\n",
                    "label: gpt\nsize=4MiB, name=\"EFI system\"\n"
                    "5: size=8MiB, name=\"root\"\n2: size=1MiB\n"));

}  // namespace
}  // namespace pellucid
