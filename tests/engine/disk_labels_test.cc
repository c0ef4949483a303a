// Partition tables of Apple, BSD and Sun, judged by The Sleuth Kit's mmls.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <ostream>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "tests/engine/labelled_disks.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Number, first sector and sectors.
std::vector<std::array<uint64_t, 3>> Places(const PartitionTable& table) {
  std::vector<std::array<uint64_t, 3>> places;
  for (const Partition& partition : table.partitions) {
    places.push_back(
        {partition.number, partition.offset / 512, partition.size / 512});
  }
  return places;
}

std::string AllWarnings(const PartitionTable& table) {
  std::string text;
  for (const std::string& warning : table.warnings) text += warning + "\n";
  return text;
}

// First byte, bytes and type, in the order of the bytes.
using Found = std::vector<std::tuple<uint64_t, uint64_t, std::string>>;

Found PartitionsOf(const PartitionTable& table, const std::string& scheme) {
  Found found;
  for (const Partition& partition : table.partitions) {
    if (partition.scheme != scheme) continue;
    found.emplace_back(partition.offset, partition.size, partition.type);
  }
  std::ranges::sort(found);
  return found;
}

// What mmls says of the table of a kind in sector `offset`. It adds lines for
// the table itself and for what lies between partitions. `base` is what its
// sectors count from.
Found MmlsSays(const std::string& image, const std::string& kind,
               uint64_t sector_size, uint64_t offset, uint64_t base) {
  const std::string text =
      RunTool({"mmls", "-t", kind, "-b", std::to_string(sector_size), "-o",
               std::to_string(offset), image});
  // "002:  000   0000000063   0000002047   0000001985   Linux (0x83)"
  Found found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string number;
    std::string slot;
    uint64_t first = 0;
    uint64_t last = 0;
    uint64_t sectors = 0;
    std::string type;
    words >> number >> slot >> first >> last >> sectors >> std::ws;
    if (words.fail() || !number.ends_with(':')) continue;
    std::getline(words, type);
    if (slot == "-------" || type == "Table" || type == "Partition Table" ||
        type == "Unused (0x00)") {
      continue;
    }
    if (const size_t code = type.rfind("(0x");
        code != std::string::npos && type.ends_with(')')) {
      type = fmt::format("0x{:02x}",
                         std::stoul(type.substr(code + 3), nullptr, 16));
    }
    found.emplace_back((first + base) * sector_size, sectors * sector_size,
                       type);
  }
  std::ranges::sort(found);
  return found;
}

// An image, and how mmls has to be asked about it.
struct Case {
  std::string name;
  std::string kind;
  // Makes the file "disk.raw" in a folder.
  std::function<void(const std::filesystem::path&)> make;
  size_t partitions;
  uint64_t sector_size = 512;
  uint64_t offset = 0;
  uint64_t base = 0;
};

void PrintTo(const Case& value, std::ostream* out) { *out << value.name; }

std::function<void(const std::filesystem::path&)> Written(LabelledDisk disk) {
  return [disk](const std::filesystem::path& folder) {
    WriteHostFile(folder / "disk.raw", disk.bytes);
  };
}

// By a program that reads `script`.
std::function<void(const std::filesystem::path&)> Made(
    std::vector<std::string> program, std::string script = "") {
  return [program, script](const std::filesystem::path& folder) {
    RunTool({"truncate", "-s", "64M", "disk.raw"}, "", folder);
    RunTool(program, script, folder);
  };
}

// A label that fdisk writes into a partition of an MBR from sector 20480 on.
std::function<void(const std::filesystem::path&)> MadeInMbr(std::string type) {
  return [type](const std::filesystem::path& folder) {
    RunTool({"truncate", "-s", "64M", "disk.raw"}, "", folder);
    RunTool(
        {"sfdisk", "--quiet", "disk.raw"},
        "label: dos\nsize=4MiB\nstart=10MiB, size=40MiB, type=" + type + "\n",
        folder);
    // Its exit status tells of the kernel, which cannot be told to look again.
    RunProgram({"fdisk", "disk.raw"},
               "b\ny\nn\na\n\n+8M\nn\nb\n40000\n+4M\nt\na\n7\nt\nb\n1\nw\n",
               folder);
  };
}

class MmlsTest : public testing::TestWithParam<Case> {};

TEST_P(MmlsTest, OffsetsLengthsAndNamesAreTheSame) {
  const Case& parameter = GetParam();
  const ScratchFolder folder;
  parameter.make(folder.path());
  const std::string image = folder / "disk.raw";
  const Found expected = MmlsSays(image, parameter.kind, parameter.sector_size,
                                  parameter.offset, parameter.base);
  EXPECT_THAT(expected, SizeIs(parameter.partitions));
  const auto device = FileDevice::Open(image, FileDevice::Sharing::kExclusive);
  const auto table = ReadPartitionTable(*device);
  ASSERT_TRUE(table);
  EXPECT_EQ(AllWarnings(*table), "");
  EXPECT_EQ(PartitionsOf(*table, parameter.kind), expected);
}

INSTANTIATE_TEST_SUITE_P(
    Tables, MmlsTest,
    testing::Values(
        Case{"AppleByParted", "mac",
             Made({"parted", "--script", "disk.raw", "mklabel", "mac", "mkpart",
                   "primary", "hfs", "1MiB", "10MiB", "mkpart", "primary",
                   "ext2", "10MiB", "20MiB"}),
             5},
        Case{"AppleOnACdByXorriso", "mac",
             [](const std::filesystem::path& folder) {
               RunTool({"mkdir", "files"}, "", folder);
               RunTool({"cp", "/bin/true", "files"}, "", folder);
               RunTool({"xorriso", "-as", "mkisofs", "-quiet", "-o", "disk.raw",
                        "-hfsplus", "-apm-block-size", "2048", "files"},
                       "", folder);
             },
             4, 2048},
        Case{"AppleByHand", "mac", Written(AppleDisk(512)), 3},
        Case{"AppleInBlocksOf2048", "mac", Written(AppleDisk(2048)), 3, 2048},
        Case{"AppleInBlocksOf4096", "mac", Written(AppleDisk(4096)), 3, 4096},
        Case{"BsdByHand", "bsd", Written(BsdDisk()), 3},
        Case{"FreeBsdByFdisk", "bsd", MadeInMbr("a5"), 2, 512, 20480},
        Case{"OpenBsdByFdisk", "bsd", MadeInMbr("a6"), 2, 512, 20480},
        Case{"NetBsdByFdisk", "bsd", MadeInMbr("a9"), 2, 512, 20480},
        Case{"FreeBsdWithOffsetsOfItsPartition", "bsd",
             Written(BsdInMbr(0xa5, true)), 2, 512, kInnerFirst, kInnerFirst},
        Case{"SunByParted", "sun",
             Made({"parted", "--script", "disk.raw", "mklabel", "sun", "mkpart",
                   "ext2", "16MiB", "32MiB", "mkpart", "32MiB", "40MiB"}),
             3},
        Case{"SunBySfdisk", "sun",
             Made({"sfdisk", "--quiet", "disk.raw"},
                  "label: sun\nsize=16065, type=2\nsize=32130, type=3\n"
                  "3: type=5\n"),
             3},
        Case{"SunByHand", "sun", Written(SunDisk()), 4},
        Case{"SunX86ByHand", "sun", Written(SunX86Disk()), 4},
        Case{"SunX86InMbr", "sun", Written(SunX86InMbr(0xbf)), 4, 512,
             kInnerFirst, kInnerFirst},
        Case{"SunX86InMbrWithTheTypeOfSwap", "sun", Written(SunX86InMbr(0x82)),
             4, 512, kInnerFirst, kInnerFirst}),
    [](const auto& param_info) { return param_info.param.name; });

TEST(DiskLabelsTest, ApplesEntriesHaveTheirNumbersAndNames) {
  const auto table = AppleDisk(512).Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table),
              ElementsAre(ElementsAre(1, 1, 63), ElementsAre(2, 64, 100),
                          ElementsAre(4, 164, 3932)));
  EXPECT_EQ(table->partitions[0].label, "Apple");
  EXPECT_EQ(table->partitions[1].label, "M\u00f6sik");
  EXPECT_EQ(table->partitions[1].scheme, "mac");
  EXPECT_EQ(AllWarnings(*table), "");
}

TEST(DiskLabelsTest, AnAppleMapWithoutItsDriverDescriptorIsSeen) {
  LabelledDisk disk = AppleDisk(2048);
  std::fill_n(disk.bytes.begin(), 512, std::byte{0});
  auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, SizeIs(3));
  EXPECT_EQ(table->partitions[1].offset, 64U * 2048);
  EXPECT_THAT(AllWarnings(*table), HasSubstr("driver descriptor"));
  // Two letters alone are no map.
  disk.Text(2048 + 48, "Apple_Patches");
  EXPECT_FALSE(disk.Read());
}

TEST(DiskLabelsTest, AnAppleMapWhoseBlockSizeIsWrongIsSeen) {
  for (const unsigned said : {0U, 1U, 1024U, 513U, 65535U}) {
    LabelledDisk disk = AppleDisk(512);
    disk.Big(2, 2, said);
    const auto table = disk.Read();
    ASSERT_TRUE(table) << said;
    EXPECT_EQ(table->partitions.at(1).offset, 64U * 512) << said;
    EXPECT_THAT(AllWarnings(*table),
                HasSubstr(fmt::format("blocks of {} bytes", said)));
  }
}

TEST(DiskLabelsTest, AnAppleEntryWithoutSignatureIsPassedOver) {
  LabelledDisk disk = AppleDisk(512);
  disk.Text(2 * 512, "XX");
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table),
              ElementsAre(ElementsAre(1, 1, 63), ElementsAre(4, 164, 3932)));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("entry 2 of 4"));
}

TEST(DiskLabelsTest, AnAppleMapOfAnyLengthEnds) {
  LabelledDisk disk(4096);
  disk.AppleDescriptor(512);
  for (unsigned i = 1; i < 2000; ++i) {
    disk.AppleEntry(512, i, 0xffffffff, i, 1, "", "Apple_partition_map");
  }
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, SizeIs(256));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("4294967295 entries"));
}

// The same entries wherever the label is.
TEST(DiskLabelsTest, BsdPartitionsAreNumberedByTheirLetters) {
  for (const uint64_t label : {512U, 64U}) {
    const auto table = BsdDisk(label).Read();
    ASSERT_TRUE(table) << label;
    EXPECT_THAT(Places(*table),
                ElementsAre(ElementsAre(1, 16, 484), ElementsAre(2, 500, 300),
                            ElementsAre(5, 800, 200)));
    EXPECT_EQ(table->partitions[0].type, "0x07");
    EXPECT_EQ(table->partitions[0].scheme, "bsd");
    EXPECT_EQ(AllWarnings(*table), "");
  }
}

// parted writes the label where Linux looks for it on Alpha and mmls does not,
// with a checksum that is not that of its words.
TEST(DiskLabelsTest, ABsdLabelByPartedIsRead) {
  const ScratchFolder folder;
  Made({"parted", "--script", "disk.raw", "mklabel", "bsd", "mkpart", "ext2",
        "1MiB", "10MiB", "mkpart", "10MiB", "20MiB"})(folder.path());
  const auto device =
      FileDevice::Open(folder / "disk.raw", FileDevice::Sharing::kExclusive);
  const auto table = ReadPartitionTable(*device);
  ASSERT_TRUE(table);
  EXPECT_EQ(AllWarnings(*table), "the BSD label has a wrong checksum\n");
  EXPECT_THAT(Places(*table), ElementsAre(ElementsAre(1, 2048, 18432),
                                          ElementsAre(2, 20480, 20480)));
}

TEST(DiskLabelsTest, ABsdLabelInTheOtherByteOrderIsRead) {
  const LabelledDisk little = BsdDisk();
  LabelledDisk big(1000);
  const auto swap = [&](uint64_t at, unsigned width) {
    for (unsigned i = 0; i < width; ++i) {
      big.bytes[512 + at + i] = little.bytes[512 + at + width - 1 - i];
    }
  };
  swap(0, 4);
  swap(40, 4);
  swap(132, 4);
  swap(138, 2);
  for (uint64_t at = 148; at < 148 + 8 * 16; at += 16) {
    swap(at, 4);
    swap(at + 4, 4);
    swap(at + 12, 1);
  }
  big.SealBsd(512, 8);
  const auto table = big.Read();
  ASSERT_TRUE(table);
  EXPECT_EQ(Places(*table), Places(*little.Read()));
  EXPECT_EQ(AllWarnings(*table), "");
}

TEST(DiskLabelsTest, ADiskThatIsAllFreeBsdHasTheLabelBehindItsBootSector) {
  // The boot sector has one partition, which begins with it.
  LabelledDisk disk = BsdDisk();
  disk.MbrEntry(3, 0xa5, 0, 50000);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, SizeIs(3));
}

TEST(DiskLabelsTest, DamageToABsdLabelIsTold) {
  LabelledDisk disk = BsdDisk();
  disk.bytes[512 + 137] ^= std::byte{1};
  auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, SizeIs(3));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("wrong checksum"));

  disk = BsdDisk();
  disk.Little(512 + 138, 2, 23);
  table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(AllWarnings(*table), HasSubstr("23 partitions; the first 22"));

  disk = BsdDisk();
  disk.Little(512 + 40, 4, 2048);
  disk.SealBsd(512, 8);
  table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(AllWarnings(*table), HasSubstr("2048 bytes"));

  disk.bytes[512 + 132] ^= std::byte{1};
  EXPECT_FALSE(disk.Read());
}

TEST(DiskLabelsTest, PartitionsOfAnInnerBsdLabelFollowTheLogicalOnes) {
  for (const uint8_t type : {uint8_t{0xa5}, uint8_t{0xa6}, uint8_t{0xa9}}) {
    const auto table = BsdInMbr(type, false).Read();
    ASSERT_TRUE(table);
    EXPECT_THAT(Places(*table),
                ElementsAre(ElementsAre(1, 1, 9), ElementsAre(2, 100, 800),
                            ElementsAre(5, 901, 50), ElementsAre(6, 116, 400),
                            ElementsAre(7, 516, 384)));
    EXPECT_EQ(table->partitions[1].scheme, "dos");
    EXPECT_EQ(table->partitions[3].scheme, "bsd");
    EXPECT_EQ(AllWarnings(*table), "");
  }
  // Only FreeBSD counts from the beginning of its partition.
  EXPECT_EQ(Places(*BsdInMbr(0xa5, true).Read()),
            Places(*BsdInMbr(0xa5, false).Read()));
  EXPECT_NE(Places(*BsdInMbr(0xa6, true).Read()),
            Places(*BsdInMbr(0xa6, false).Read()));
  // No other type has a label.
  EXPECT_THAT(BsdInMbr(0x83, false).Read()->partitions, SizeIs(3));
}

TEST(DiskLabelsTest, AnInnerBsdLabelSaysNothingOfOtherPlaces) {
  LabelledDisk disk = BsdInMbr(0xa6, false);
  disk.BsdEntry(kInnerLabel, 3, 1, 9, 17);     // Partition 1 of the MBR.
  disk.BsdEntry(kInnerLabel, 4, 100, 800, 7);  // All of its own.
  disk.BsdEntry(kInnerLabel, 5, 99, 10, 7);    // Begins in front of it.
  disk.BsdEntry(kInnerLabel, 6, 890, 11, 7);   // Ends behind it.
  disk.BsdEntry(kInnerLabel, 7, 0xffffffff, 0xffffffff, 7);
  disk.SealBsd(kInnerLabel, 8);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, SizeIs(5));
  const std::string warnings = AllWarnings(*table);
  EXPECT_THAT(warnings, Not(HasSubstr("has d outside")));
  EXPECT_THAT(warnings, Not(HasSubstr("has e outside")));
  EXPECT_THAT(warnings, HasSubstr("partition 2 has f outside"));
  EXPECT_THAT(warnings, HasSubstr("has g outside"));
  EXPECT_THAT(warnings, HasSubstr("has h outside"));
}

TEST(DiskLabelsTest, SlicesOfSunKeepTheirNumbers) {
  auto table = SunDisk().Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table),
              ElementsAre(ElementsAre(1, 0, 640), ElementsAre(2, 640, 320),
                          ElementsAre(3, 0, 3200), ElementsAre(7, 960, 2240)));
  EXPECT_EQ(table->partitions[0].scheme, "sun");
  EXPECT_EQ(AllWarnings(*table), "");
  table = SunX86InMbr(0xbf).Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table),
              ElementsAre(ElementsAre(1, 1, 9), ElementsAre(2, 100, 800),
                          ElementsAre(5, 164, 300), ElementsAre(6, 464, 100),
                          ElementsAre(7, 100, 800), ElementsAre(8, 100, 16)));
  // Swap space of Linux has no label.
  LabelledDisk swap = SunX86InMbr(0x82);
  swap.bytes[kInnerLabel + 12] ^= std::byte{1};
  EXPECT_THAT(swap.Read()->partitions, SizeIs(2));
}

// Before there was a table of contents.
TEST(DiskLabelsTest, AnOldLabelOfSunIsBelievedByItsChecksum) {
  LabelledDisk disk = SunDisk();
  disk.Big(128, 4, 0);
  disk.Big(140, 2, 0);
  disk.Big(188, 4, 0);
  disk.Seal(0, 512, 510);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_EQ(Places(*table), Places(*SunDisk().Read()));
  disk.bytes[511] ^= std::byte{1};
  EXPECT_FALSE(disk.Read());
}

TEST(DiskLabelsTest, DamageToALabelOfSunIsTold) {
  LabelledDisk disk = SunDisk();
  disk.bytes[511] ^= std::byte{1};
  auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, SizeIs(4));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("wrong checksum"));

  disk = SunDisk();
  disk.Big(140, 2, 9);
  disk.Seal(0, 512, 510);
  table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, SizeIs(4));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("9 slices; the first 8"));

  disk = SunDisk();
  disk.Big(436, 2, 0);
  disk.Seal(0, 512, 510);
  table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, IsEmpty());
  EXPECT_THAT(AllWarnings(*table), HasSubstr("cylinders without sectors"));

  disk = SunX86Disk();
  disk.Little(512 + 30, 2, 17);
  table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, SizeIs(4));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("17 slices; the first 16"));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("wrong checksum"));
}

TEST(DiskLabelsTest, PlacesOutsideTheDiskAreCutOrLeftOut) {
  LabelledDisk sun = SunDisk();
  sun.SunSlice(0, 2, 0xffffffff, 0xffffffff);
  sun.SunSlice(1, 2, 99, 0xffffffff);
  sun.SunSlice(3, 2, 100, 1);
  sun.Big(436, 2, 0xffff);
  sun.Big(438, 2, 0xffff);
  sun.Seal(0, 512, 510);
  auto table = sun.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table), ElementsAre(ElementsAre(3, 0, 3200)));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 1 is left out"));

  LabelledDisk apple = AppleDisk(4096);
  apple.AppleEntry(4096, 2, 4, 511, 0xffffffff, "", "");
  apple.AppleEntry(4096, 4, 4, 512, 1, "", "");
  table = apple.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(Places(*table), ElementsAre(ElementsAre(1, 8, 63 * 8),
                                          ElementsAre(2, 511 * 8, 8)));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 2 is cut"));
  EXPECT_THAT(AllWarnings(*table), HasSubstr("partition 4 is left out"));
}

// What was recognised before these labels were known stays what it was.
TEST(DiskLabelsTest, AnMbrOrAGptComesFirst) {
  LabelledDisk disk = BsdDisk();
  disk.MbrEntry(0, 0x83, 2, 900);
  EXPECT_THAT(Places(*disk.Read()), ElementsAre(ElementsAre(1, 2, 900)));
  disk = AppleDisk(512);
  disk.MbrEntry(1, 0x83, 2, 900);
  EXPECT_THAT(Places(*disk.Read()), ElementsAre(ElementsAre(2, 2, 900)));
  // A protective MBR without a GPT is told of, as ever.
  disk = BsdDisk();
  disk.MbrEntry(0, 0xee, 1, 999);
  const auto table = disk.Read();
  ASSERT_TRUE(table);
  EXPECT_THAT(table->partitions, IsEmpty());
  EXPECT_THAT(AllWarnings(*table), HasSubstr("neither copy"));
}

TEST(DiskLabelsTest, AReadErrorIsThrown) {
  MemoryDevice device(BsdInMbr(0xa5, false).bytes);
  device.FailReads(kInnerLabel, kInnerLabel + 1);
  EXPECT_THROW(ReadPartitionTable(device), IoError);
}

}  // namespace
}  // namespace pellucid
