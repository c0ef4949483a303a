#include "engine/qcow2/reference_scan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/qcow2/bitmap_directory.h"
#include "engine/qcow2/image_check.h"
#include "engine/qcow2/refcount_comparison.h"
#include "engine/qcow2/reference_scan.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"

namespace pellucid::qcow2 {
namespace {

using testing::HasSubstr;

constexpr uint64_t kL1TableOffset = 40;
constexpr uint64_t kRefcountTableOffset = 48;
constexpr uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;

// Numbers of a check, ours or QEMU's.
struct Verdict {
  uint64_t leaks = 0;
  uint64_t corruptions = 0;
  bool operator==(const Verdict&) const = default;
};

void PrintTo(const Verdict& verdict, std::ostream* out) {
  *out << verdict.leaks << " leaks, " << verdict.corruptions << " corruptions";
}

class ReferenceScanTest : public ::testing::Test {
 protected:
  // `qemu-img check` of the file as it is. Without the passphrase: metadata is
  // not encrypted.
  Verdict Qemu(const std::string& name) {
    std::vector<std::string> command = {"qemu-img", "check", "--output=json"};
    const std::vector<std::string> open = images_.OpenArguments(name);
    command.insert(command.end(), open.begin(), open.end());
    const ProgramResult result = RunProgram(command);
    if (result.out.empty()) throw std::runtime_error(result.err);
    const auto report = nlohmann::json::parse(result.out);
    EXPECT_EQ(report.value("check-errors", 0), 0) << result.err;
    qemu_said_ = result.err;
    return {.leaks = report.value("leaks", uint64_t{0}),
            .corruptions = report.value("corruptions", uint64_t{0})};
  }

  static ImageCheck Check(Bytes content) {
    MemoryDevice file(std::move(content));
    return CheckImage(file, "disk.qcow2", ReadHeader(file, "disk.qcow2"));
  }

  Verdict Ours(const std::string& name) {
    check_ = Check(ReadHostFile(images_.path(name)));
    return {.leaks = check_.leaks, .corruptions = check_.corruptions};
  }

  void ExpectClean(const std::string& name) {
    EXPECT_EQ(Qemu(name), Verdict());
    EXPECT_EQ(Ours(name), Verdict());
    EXPECT_TRUE(check_.is_sound()) << testing::PrintToString(check_.texts());
    EXPECT_EQ(check_.leaks_behind_end, 0U);
  }

  void ExpectSameVerdict(const std::string& name) {
    const Verdict qemu = Qemu(name);
    EXPECT_EQ(Ours(name), qemu)
        << qemu_said_ << testing::PrintToString(check_.texts());
  }

  // An image with plain and compressed clusters, holes and two snapshots.
  void MakeBusyImage(QemuImage image) {
    image.name = "disk.qcow2";
    image.virtual_size = std::max<uint64_t>(3 << 20, 24 * image.cluster_size);
    images_.Create(image);
    const bool external = !image.more_options.empty() &&
                          image.more_options[0].starts_with("data_file=");
    // Before the rest: QEMU compresses nothing over what there is.
    // Shared clusters and snapshots are too much for narrow refcounts.
    const bool narrow =
        image.more_options == std::vector<std::string>{"refcount_bits=2"} ||
        image.more_options == std::vector<std::string>{"refcount_bits=4"};
    if (image.encryption == "none" && !external && !narrow) {
      std::vector<std::string> commands;
      for (uint64_t i = 0; i < 7; ++i) {
        commands.push_back(fmt::format("write -q -c -P {} {} {}", i + 1,
                                       (16 + i) * image.cluster_size,
                                       image.cluster_size));
      }
      images_.Write(image.name, commands);
    }
    images_.Write(image.name,
                  ScatteredWrites(images_, image.virtual_size,
                                  image.cluster_size, 20, image.cluster_size));
    // QEMU makes no snapshot with external data.
    if (!external) Snapshot("one");
    images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                              image.cluster_size, 10, 77));
    if (!external) Snapshot("two");
    images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                              image.cluster_size, 5, 99));
  }

  void Snapshot(const std::string& name) {
    std::vector<std::string> command = {"qemu-img", "snapshot", "-c", name};
    const std::vector<std::string> open = images_.OpenArguments("disk.qcow2");
    command.insert(command.end(), open.begin(), open.end());
    RunTool(command);
  }

  QemuImages images_;
  ImageCheck check_;
  std::string qemu_said_;
};

struct Kind {
  std::string name;
  QemuImage image;
};

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

std::vector<Kind> Kinds() {
  std::vector<Kind> kinds;
  for (const uint64_t cluster_size : {512U, 4096U, 65536U, 2U << 20}) {
    for (const bool version2 : {false, true}) {
      kinds.push_back(
          {fmt::format("{}_{}", version2 ? "v2" : "v3", cluster_size),
           {.name = "",
            .encryption = "none",
            .cluster_size = cluster_size,
            .version2 = version2,
            .more_options = {},
            .backing = ""}});
    }
  }
  for (const unsigned bits : {2U, 4U, 8U, 32U, 64U}) {
    kinds.push_back({fmt::format("refcount_bits_{}", bits),
                     {.name = "",
                      .encryption = "none",
                      .cluster_size = 4096,
                      .more_options = {fmt::format("refcount_bits={}", bits)},
                      .backing = ""}});
  }
  kinds.push_back({"extended",
                   {.name = "",
                    .encryption = "none",
                    .cluster_size = 16384,
                    .extended_l2 = true,
                    .more_options = {},
                    .backing = ""}});
  for (const char* encryption : {"aes", "luks"}) {
    kinds.push_back({encryption,
                     {.name = "",
                      .encryption = encryption,
                      .cluster_size = 4096,
                      .more_options = {},
                      .backing = ""}});
  }
  return kinds;
}

class ReferenceScanKinds : public ReferenceScanTest,
                           public ::testing::WithParamInterface<Kind> {};

INSTANTIATE_TEST_SUITE_P(All, ReferenceScanKinds, ::testing::ValuesIn(Kinds()),
                         [](const auto& test) { return test.param.name; });

TEST_P(ReferenceScanKinds, CleanImageIsClean) {
  MakeBusyImage(GetParam().image);
  ExpectClean("disk.qcow2");
}

class DamagedKinds : public ReferenceScanKinds {};

std::vector<Kind> SmallerKinds() {
  std::vector<Kind> kinds = Kinds();
  std::erase_if(
      kinds, [](const Kind& kind) { return kind.image.cluster_size > 65536; });
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(All, DamagedKinds, ::testing::ValuesIn(SmallerKinds()),
                         [](const auto& test) { return test.param.name; });

// One word of a table at a time: refcounts, L1 and L2 entries, of which some
// belong to snapshots. QEMU's check says the same of each.
TEST_P(DamagedKinds, GetTheVerdictOfQemu) {
  MakeBusyImage(GetParam().image);
  const Bytes clean = ReadHostFile(images_.path("disk.qcow2"));
  MemoryDevice device(clean);
  const Header header = ReadHeader(device, "disk.qcow2");
  const uint64_t cluster = header.cluster_size();
  const uint64_t table = LoadNumber(clean, kRefcountTableOffset, 8);
  const uint64_t block = LoadNumber(clean, table, 8);
  const uint64_t l1 = LoadNumber(clean, kL1TableOffset, 8);
  const uint64_t l2 = LoadNumber(clean, l1, 8) & kOffsetMask;
  const auto damaged = [&](uint64_t at, uint64_t mask) {
    Bytes image = clean;
    StoreNumber(image, at, 8, LoadNumber(image, at, 8) ^ mask);
    WriteHostFile(images_.path("disk.qcow2"), image);
    SCOPED_TRACE(testing::Message() << std::hex << at << " ^ " << mask);
    ExpectSameVerdict("disk.qcow2");
  };
  std::mt19937_64 random(cluster);
  const uint64_t used_bytes =
      (clean.size() / cluster << header.refcount_order) / 8;
  for (int i = 0; i < 4; ++i) {
    // Within what the refcounts of the file take, in one block.
    const uint64_t word = random() % std::min(cluster, used_bytes) / 8 * 8;
    damaged(block + word, random() & random() & random() & random());
  }
  damaged(l1, uint64_t{1} << 63);
  for (int i = 0; i < 5; ++i) {
    const uint64_t entry =
        l2 + random() % 24 * header.l2_entry_size() % cluster;
    damaged(entry, uint64_t{1} << 63);
    // Moves what it refers to by up to 8 clusters.
    if ((LoadNumber(clean, entry, 8) >> 62 & 1) == 0) {
      damaged(entry, (random() % 8) * cluster);
    }
  }
}

TEST_F(ReferenceScanTest, OneBitRefcountsHaveNoSnapshots) {
  images_.Create({.name = "disk.qcow2",
                  .encryption = "none",
                  .cluster_size = 512,
                  .virtual_size = 1 << 20,
                  .more_options = {"refcount_bits=1"},
                  .backing = ""});
  images_.Write("disk.qcow2", ScatteredWrites(images_, 1 << 20, 512, 20, 1));
  ExpectClean("disk.qcow2");
}

TEST_F(ReferenceScanTest, ExternalDataIsNotCounted) {
  MakeBusyImage({.name = "",
                 .encryption = "none",
                 .cluster_size = 4096,
                 .more_options = {"data_file=" +
                                  (images_.folder() / "disk.data").string()},
                 .backing = ""});
  ExpectClean("disk.qcow2");
}

TEST_F(ReferenceScanTest, BitmapsAreCounted) {
  MakeBusyImage({.name = "",
                 .encryption = "none",
                 .cluster_size = 4096,
                 .more_options = {},
                 .backing = ""});
  for (const char* name : {"first", "second of them"}) {
    RunTool({"qemu-img", "bitmap", "--add", "-g", "512",
             images_.path("disk.qcow2"), name});
  }
  images_.Write("disk.qcow2", {"write -q -P 7 1000 300000"});
  const Bytes clean = ReadHostFile(images_.path("disk.qcow2"));
  MemoryDevice device(clean);
  const Header header = ReadHeader(device, "disk.qcow2");
  const BitmapDirectory bitmaps =
      ReadBitmapDirectory(device, "disk.qcow2", header);
  ASSERT_EQ(bitmaps.entries.size(), 2U);
  ExpectClean("disk.qcow2");

  // Without the autoclear bit they are leaked clusters.
  Bytes stale = clean;
  StoreNumber(stale, 88, 8, 0);
  WriteHostFile(images_.path("disk.qcow2"), stale);
  ExpectSameVerdict("disk.qcow2");
  EXPECT_GT(check_.leaks, 3U);
}

TEST_F(ReferenceScanTest, SharedMetadataIsAHazardAlthoughRefcountsAgree) {
  images_.Create({.name = "disk.qcow2",
                  .encryption = "none",
                  .virtual_size = 1 << 20,
                  .more_options = {},
                  .backing = ""});
  images_.Write("disk.qcow2", {"write -q 0 128k"});
  Bytes image = ReadHostFile(images_.path("disk.qcow2"));
  const uint64_t l1 = LoadNumber(image, kL1TableOffset, 8);
  const uint64_t l2 = LoadNumber(image, l1, 8) & kOffsetMask;
  // The first cluster is where the L1 table stands, and both refcounts say so.
  const uint64_t lost = LoadNumber(image, l2, 8) & kOffsetMask;
  StoreNumber(image, l2, 8, l1);
  const uint64_t block =
      LoadNumber(image, LoadNumber(image, kRefcountTableOffset, 8), 8);
  StoreNumber(image, block + l1 / 65536 * 2, 2, 2);
  StoreNumber(image, block + lost / 65536 * 2, 2, 0);
  const ImageCheck check = Check(image);
  EXPECT_EQ(check.corruptions, 0U);
  EXPECT_EQ(check.leaks, 0U);
  EXPECT_EQ(check.hazards, 1U);
  EXPECT_FALSE(check.is_sound());
  ASSERT_EQ(check.texts().size(), 1U);
  EXPECT_THAT(check.texts()[0], HasSubstr(fmt::format("{:#x}", l1)));
}

TEST_F(ReferenceScanTest, DifferencesRepairTheImage) {
  MakeBusyImage({.name = "",
                 .encryption = "none",
                 .cluster_size = 4096,
                 .more_options = {},
                 .backing = ""});
  Bytes image = ReadHostFile(images_.path("disk.qcow2"));
  const Bytes clean = image;
  const uint64_t block =
      LoadNumber(image, LoadNumber(image, kRefcountTableOffset, 8), 8);
  for (uint64_t i = 1; i < 60; ++i) {
    StoreNumber(image, block + i * 2, 2, i * 7 % 5);
  }
  MemoryDevice device(image);
  const Header header = ReadHeader(device, "disk.qcow2");
  const ReferenceScan scan = ScanReferences(device, "disk.qcow2", header,
                                            ReadSnapshots(device, "", header));
  std::vector<RefcountDifference> differences;
  CompareWithRefcounts(device, header, scan.counts,
                       [&](const RefcountDifference& difference) {
                         differences.push_back(difference);
                       });
  EXPECT_GT(differences.size(), 20U);
  for (const RefcountDifference& difference : differences) {
    StoreNumber(image, block + difference.cluster * 2, 2, difference.counted);
  }
  EXPECT_EQ(image, clean);
}

// 500 snapshots share an L1 table of 32 MiB whose entries all refer to one L2
// table: 2 billion references that a walk one by one would follow for hours.
TEST_F(ReferenceScanTest, SharedTablesAreReadOnce) {
  constexpr uint64_t kCluster = 65536;
  constexpr uint64_t kL1 = 4 * kCluster;
  constexpr uint64_t kL1Size = kMaxL1Bytes / 8;
  Bytes image(kL1 + kMaxL1Bytes + 2 * kCluster);
  Header header;
  header.version = 3;
  header.cluster_bits = 16;
  header.refcount_order = 6;
  header.l1_table_offset = kL1;
  header.l1_size = kL1Size;
  header.refcount_table_offset = kCluster;
  header.refcount_table_clusters = 1;
  const uint64_t l2 = kL1 + kMaxL1Bytes;
  for (uint64_t i = 0; i < kL1Size; ++i) StoreNumber(image, kL1 + i * 8, 8, l2);
  StoreNumber(image, l2, 8, l2 + kCluster);
  MemoryDevice device(std::move(image));
  std::vector<qcow2::Snapshot> snapshots(500);
  for (qcow2::Snapshot& snapshot : snapshots) {
    snapshot.l1_table_offset = kL1;
    snapshot.l1_size = kL1Size;
    snapshot.entry_offset = 2 * kCluster;
  }
  const auto begin = std::chrono::steady_clock::now();
  const ReferenceScan scan =
      ScanReferences(device, "disk.qcow2", header, snapshots);
  EXPECT_EQ(scan.counts[l2 / kCluster], 501 * kL1Size);
  EXPECT_EQ(scan.counts[l2 / kCluster + 1], 501 * kL1Size);
  EXPECT_EQ(scan.counts[kL1 / kCluster], 501U);
  EXPECT_LT(device.bytes_read(), 40U << 20);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(ReferenceScanTest, EntriesBehindTheEndAreFoundAndNotCounted) {
  images_.Create({.name = "disk.qcow2",
                  .encryption = "none",
                  .virtual_size = 1 << 20,
                  .more_options = {},
                  .backing = ""});
  images_.Write("disk.qcow2", {"write -q 0 128k"});
  Bytes image = ReadHostFile(images_.path("disk.qcow2"));
  const uint64_t l1 = LoadNumber(image, kL1TableOffset, 8);
  const uint64_t l2 = LoadNumber(image, l1, 8) & kOffsetMask;
  StoreNumber(image, l2, 8, (uint64_t{1} << 63) | (uint64_t{1} << 54));
  WriteHostFile(images_.path("disk.qcow2"), image);
  ExpectSameVerdict("disk.qcow2");
  EXPECT_THAT(check_.texts().at(0), HasSubstr(fmt::format("byte {}", l2)));
  EXPECT_THAT(check_.texts().at(0), HasSubstr("behind the"));
}

TEST_F(ReferenceScanTest, MoreClustersThanTheLimitAreRefused) {
  EXPECT_THROW(ClusterCounts(ClusterCounts::kMaxClusters + 1, "disk.qcow2"),
               Unsupported);
}

}  // namespace
}  // namespace pellucid::qcow2
