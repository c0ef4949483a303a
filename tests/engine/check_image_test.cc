// What `pellucid check` finds and repairs, with qemu-img as the judge.

#include "engine/check_image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/image_check.h"
#include "engine/qcow2/image_repair.h"
#include "tests/engine/crash_judge.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/findings_text.h"
#include "tests/engine/image_states_fixture.h"
#include "tests/engine/manifest_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/thrown_text.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kName = "disk.qcow2";
constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint64_t kOffset = 0x00ff'ffff'ffff'fe00;

// Where things stand in an image.
struct Places {
  explicit Places(const Bytes& image)
      : cluster(uint64_t{1} << LoadNumber(image, 20, 4)),
        refcount_order(LoadNumber(image, 4, 4) >= 3 ? LoadNumber(image, 96, 4)
                                                    : 4),
        l1(LoadNumber(image, 40, 8)),
        table(LoadNumber(image, 48, 8)),
        block(LoadNumber(image, table, 8)),
        l2(LoadNumber(image, l1, 8) & kOffset),
        is_extended(LoadNumber(image, 4, 4) >= 3 &&
                    (LoadNumber(image, 72, 8) & 16) != 0) {}

  uint64_t l2_step() const { return is_extended ? 16 : 8; }

  const uint64_t cluster;
  const uint64_t refcount_order;
  const uint64_t l1;
  const uint64_t table;
  const uint64_t block;
  const uint64_t l2;
  const bool is_extended;
};

// The first entries of the first L2 table that have clusters which are not
// compressed.
std::vector<uint64_t> DataEntries(const Bytes& image) {
  const Places places(image);
  std::vector<uint64_t> entries;
  for (uint64_t at = 0; at < places.cluster; at += places.l2_step()) {
    const uint64_t entry = LoadNumber(image, places.l2 + at, 8);
    if ((entry & kCompressed) == 0 && (entry & kOffset) != 0) {
      entries.push_back(places.l2 + at);
    }
  }
  return entries;
}

// Of a cluster whose refcount block there is.
void SetRefcount(Bytes& image, uint64_t cluster, uint64_t refcount) {
  const Places places(image);
  const uint64_t per_block = (places.cluster * 8) >> places.refcount_order;
  const uint64_t block =
      LoadNumber(image, places.table + cluster / per_block * 8, 8);
  if (block == 0) throw std::runtime_error("there is no such refcount block");
  const uint64_t bit = (cluster % per_block) << places.refcount_order;
  if (places.refcount_order >= 3) {
    StoreNumber(image, block + bit / 8, 1U << (places.refcount_order - 3),
                refcount);
  } else {
    image[block + bit / 8] |= static_cast<std::byte>(refcount << (bit % 8));
  }
}

void Flip(Bytes& image, uint64_t at, uint64_t mask) {
  StoreNumber(image, at, 8, LoadNumber(image, at, 8) ^ mask);
}

struct Damage {
  std::string name;
  bool can_be_repaired = true;
  std::function<void(Bytes& image)> apply;
};

// Each kind of damage that `qemu-img check` has an eye for.
std::vector<Damage> Damages() {
  return {
      {.name = "Leaks",
       .apply =
           [](Bytes& image) {
             // Clusters that nothing refers to, and whose refcount is 1.
             const uint64_t cluster = Places(image).cluster;
             const uint64_t first = image.size() / cluster;
             image.resize(image.size() + 3 * cluster);
             for (uint64_t i = 0; i < 3; ++i) SetRefcount(image, first + i, 1);
           }},
      {.name = "ScrambledRefcounts",
       .apply =
           [](Bytes& image) {
             const Places places(image);
             const uint64_t used =
                 ((image.size() / places.cluster) << places.refcount_order) / 8;
             const Bytes noise = Noise(std::min(used, places.cluster), 3);
             std::ranges::copy(
                 noise, image.begin() + static_cast<ptrdiff_t>(places.block));
           }},
      {.name = "ZeroRefcounts",
       .apply =
           [](Bytes& image) {
             const Places places(image);
             std::fill_n(image.begin() + static_cast<ptrdiff_t>(places.block),
                         places.cluster, std::byte{0});
           }},
      {.name = "LostRefcountBlock",
       .apply =
           [](Bytes& image) { StoreNumber(image, Places(image).table, 8, 0); }},
      {.name = "RefcountBlockOffItsPlace",
       .apply =
           [](Bytes& image) {
             const Places places(image);
             StoreNumber(image, places.table, 8, places.block + 512);
           }},
      {.name = "RefcountBlockBehindTheEnd",
       .apply =
           [](Bytes& image) {
             const Places places(image);
             StoreNumber(image, places.table, 8,
                         (image.size() / places.cluster + 9) * places.cluster);
           }},
      {.name = "RefcountBlockIsTheL2Table",
       .apply =
           [](Bytes& image) {
             StoreNumber(image, Places(image).table, 8, Places(image).l2);
           }},
      {.name = "CopiedFlags",
       .apply =
           [](Bytes& image) {
             Flip(image, Places(image).l1, kCopied);
             const std::vector<uint64_t> entries = DataEntries(image);
             for (size_t i = 0; i < entries.size(); i += 3) {
               Flip(image, entries[i], kCopied);
             }
           }},
      {.name = "ClusterUsedTwice",
       .apply =
           [](Bytes& image) {
             const std::vector<uint64_t> entries = DataEntries(image);
             StoreNumber(image, entries.at(0), 8,
                         LoadNumber(image, entries.at(1), 8));
             if (Places(image).is_extended) {
               StoreNumber(image, entries[0] + 8, 8,
                           LoadNumber(image, entries[1] + 8, 8));
             }
           }},
      {.name = "EverythingAtOnce",
       .apply =
           [](Bytes& image) {
             for (const Damage& damage : Damages()) {
               if (damage.name == "CopiedFlags" ||
                   damage.name == "ClusterUsedTwice" ||
                   damage.name == "RefcountBlockOffItsPlace") {
                 damage.apply(image);
               }
             }
           }},
      {.name = "EntryBehindTheEnd",
       .can_be_repaired = false,
       .apply =
           [](Bytes& image) {
             const Places places(image);
             StoreNumber(image, DataEntries(image).at(0), 8,
                         kCopied | (image.size() / places.cluster + 99) *
                                       places.cluster);
           }},
      {.name = "ReservedBits",
       .can_be_repaired = false,
       .apply =
           [](Bytes& image) { Flip(image, DataEntries(image).at(0), 0x1e); }},
      {.name = "L2TableBehindTheEnd",
       .can_be_repaired = false,
       .apply =
           [](Bytes& image) {
             const Places places(image);
             StoreNumber(image, places.l1, 8,
                         kCopied | (image.size() / places.cluster + 99) *
                                       places.cluster);
           }},
  };
}

// As `qemu-img check` tells.
struct QemuVerdict {
  int exit_code = 0;
  nlohmann::json report;
  std::string text;
  uint64_t Number(const char* name) const {
    return report.value(name, uint64_t{0});
  }
};

QemuVerdict AskQemu(const std::vector<std::string>& open_arguments) {
  std::vector<std::string> command = {"qemu-img", "check", "--output=json"};
  command.insert(command.end(), open_arguments.begin(), open_arguments.end());
  const ProgramResult result = RunProgram(command);
  if (result.out.empty()) throw std::runtime_error(result.err);
  return {.exit_code = result.exit_code,
          .report = nlohmann::json::parse(result.out),
          .text = result.err};
}

int ExitCode(const CheckReport& report) {
  if (report.findings.count(Severity::kCorruption) != 0) return 2;
  return report.findings.count(Severity::kLeak) != 0 ? 3 : 0;
}

void ExpectSameVerdict(const CheckReport& ours, const QemuVerdict& qemu) {
  const std::string both = qemu.text + "\nours:\n" + TextsOf(ours.findings);
  if (qemu.Number("check-errors") != 0) {
    // QEMU gives up where it cannot read a refcount; there is one cause of
    // that, and we can tell it.
    EXPECT_THAT(TextsOf(ours.findings), HasSubstr("its block is not at a"));
    EXPECT_EQ(ExitCode(ours), 2);
    return;
  }
  EXPECT_EQ(ours.findings.count(Severity::kCorruption),
            qemu.Number("corruptions"))
      << both;
  EXPECT_EQ(ours.findings.count(Severity::kLeak), qemu.Number("leaks")) << both;
  EXPECT_EQ(ExitCode(ours), qemu.exit_code) << both;
  ASSERT_TRUE(ours.clusters.has_value());
  EXPECT_EQ(ours.clusters->image_end_offset, qemu.Number("image-end-offset"));
  EXPECT_EQ(ours.clusters->total_clusters, qemu.Number("total-clusters"));
  EXPECT_EQ(ours.clusters->allocated_clusters,
            qemu.Number("allocated-clusters"));
  EXPECT_EQ(ours.clusters->fragmented_clusters,
            qemu.Number("fragmented-clusters"));
  EXPECT_EQ(ours.clusters->compressed_clusters,
            qemu.Number("compressed-clusters"));
}

struct DamagedImage {
  ChangedImage image;
  Damage damage;
};

void PrintTo(const DamagedImage& damaged, std::ostream* out) {
  *out << damaged.image.name << damaged.damage.name;
}

std::vector<DamagedImage> DamagedImages() {
  std::vector<DamagedImage> all;
  for (ChangedImage& image : ChangedImages()) {
    for (const Damage& damage : Damages()) {
      // It has one cluster with data.
      if (image.name == "Clusters2M" && (damage.name == "ClusterUsedTwice" ||
                                         damage.name == "EverythingAtOnce")) {
        continue;
      }
      all.push_back({image, damage});
    }
  }
  return all;
}

class CheckDamagedImageTest : public ::testing::TestWithParam<DamagedImage> {
 protected:
  CheckDamagedImageTest() {
    Make(GetParam().image, images_);
    Bytes content = ReadHostFile(images_.path(kName));
    GetParam().damage.apply(content);
    WriteHostFile(images_.path(kName), content);
    damaged_ = content;
  }

  CheckReport Check(Repair repair = Repair::kNone) {
    return CheckImage(images_.options(kName), repair);
  }
  QemuVerdict Qemu() { return AskQemu(images_.OpenArguments(kName)); }

  QemuImages images_;
  Bytes damaged_;
};

INSTANTIATE_TEST_SUITE_P(All, CheckDamagedImageTest,
                         ::testing::ValuesIn(DamagedImages()),
                         [](const auto& test) {
                           return test.param.image.name + "_" +
                                  test.param.damage.name;
                         });

TEST_P(CheckDamagedImageTest, HasTheVerdictOfQemuAndIsRepaired) {
  const CheckReport before = Check();
  ExpectSameVerdict(before, Qemu());
  EXPECT_NE(ExitCode(before), 0);
  for (const Finding& finding : before.findings.list()) {
    EXPECT_THAT(finding.text, HasSubstr(kName));
  }
  ASSERT_EQ(ReadHostFile(images_.path(kName)), damaged_);
  if (!GetParam().damage.can_be_repaired) {
    const CheckReport after = Check(Repair::kAll);
    EXPECT_THAT(after.not_repaired, HasSubstr("what is in use cannot be told"));
    EXPECT_EQ(after.corruptions_fixed, 0U);
    EXPECT_EQ(ExitCode(after), 2);
    EXPECT_EQ(ReadHostFile(images_.path(kName)), damaged_);
    return;
  }
  const ImageInMemory image = InMemory(GetParam().image, images_);
  const ImageStates states = StatesOf(image, Spans(image.files()));
  const CheckReport after = Check(Repair::kAll);
  EXPECT_THAT(after.not_repaired, IsEmpty());
  EXPECT_EQ(ExitCode(after), 0) << TextsOf(after.findings);
  EXPECT_EQ(after.findings.count(Severity::kHazard), 0U);
  EXPECT_EQ(after.leaks_fixed, before.findings.count(Severity::kLeak));
  EXPECT_EQ(after.corruptions_fixed,
            before.findings.count(Severity::kCorruption));
  const QemuVerdict qemu = Qemu();
  EXPECT_EQ(qemu.exit_code, 0) << qemu.text;
  ExpectSameVerdict(after, qemu);
  // No byte of any state has changed.
  const Bytes repaired = ReadHostFile(images_.path(kName));
  EXPECT_EQ(DifferenceOf(StatesOf(image, Spans({repaired})), states), "");
  // Another look finds nothing to do.
  EXPECT_EQ(ExitCode(Check(Repair::kAll)), 0);
  EXPECT_EQ(ReadHostFile(images_.path(kName)), repaired);
}

class CheckRepairCrashTest : public ::testing::TestWithParam<DamagedImage> {};

// Every damage of one kind of image, and all at once of every kind.
std::vector<DamagedImage> CrashedImages() {
  std::vector<DamagedImage> all = DamagedImages();
  std::erase_if(all, [](const DamagedImage& damaged) {
    return !damaged.damage.can_be_repaired ||
           (damaged.image.name != "Clusters4k" &&
            damaged.damage.name != "EverythingAtOnce");
  });
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, CheckRepairCrashTest,
                         ::testing::ValuesIn(CrashedImages()),
                         [](const auto& test) {
                           return test.param.image.name + "_" +
                                  test.param.damage.name;
                         });

void RepairAll(CrashDisks& disks) {
  const auto file = disks.Open();
  const auto is_flawless = [&] {
    const qcow2::ImageCheck check =
        qcow2::CheckImage(*file, kName, qcow2::ReadHeader(*file, kName));
    return check.is_sound() && check.leaks == 0;
  };
  for (int i = 0; i < 3 && !is_flawless(); ++i) {
    qcow2::RepairImage(*file, kName);
  }
}

TEST_P(CheckRepairCrashTest, PowerCutsLeaveTheOldStateOrTheRepairedOne) {
  QemuImages images;
  Make(GetParam().image, images);
  Bytes content = ReadHostFile(images.path(kName));
  GetParam().damage.apply(content);
  WriteHostFile(images.path(kName), content);
  const ImageInMemory image = InMemory(GetParam().image, images);
  const ImageStates states = StatesOf(image, Spans(image.files()));
  const auto verdict = [&](std::span<const std::byte> file) {
    BorrowedDisk disk(file);
    const qcow2::ImageCheck check =
        qcow2::CheckImage(disk, kName, qcow2::ReadHeader(disk, kName));
    return std::array{check.corruptions, check.hazards, check.leaks};
  };
  const std::array<uint64_t, 3> flawless{};
  ASSERT_NE(verdict(content), flawless);

  CrashDisks disks(image.files());
  RepairAll(disks);
  ExpectFlawless(image, disks.contents());
  uint64_t damaged = 0;
  uint64_t repaired = 0;
  bool failed = false;
  ForEachCrashPoint(disks, 2, 7, [&](const CrashPoint& point) {
    if (failed) return;
    SCOPED_TRACE(point.description);
    EXPECT_EQ(DifferenceOf(StatesOf(image, point.disks), states), "");
    const bool is_repaired = verdict(point.disks[0]) == flawless;
    ++(is_repaired ? repaired : damaged);
    if (!is_repaired && damaged % 8 == 1) {
      std::vector<Bytes> files;
      for (const auto& disk : point.disks) {
        files.emplace_back(disk.begin(), disk.end());
      }
      CrashDisks again(files);
      RepairAll(again);
      EXPECT_EQ(DifferenceOf(StatesOf(image, Spans(again.contents())), states),
                "");
      ExpectFlawless(image, again.contents());
    }
    failed = ::testing::Test::HasFailure();
  });
  EXPECT_GT(damaged, 1U);
  EXPECT_GT(repaired, 1U);
}

// One image, damaged in one way.
class CheckImageTest : public ::testing::Test {
 protected:
  Bytes MakePlain(uint64_t cluster_size = 65536,
                  const std::string& encryption = "none") {
    QemuImage image;
    image.name = kName;
    image.encryption = encryption;
    image.cluster_size = cluster_size;
    image.virtual_size = 3 << 20;
    images_.Create(image);
    images_.Write(kName, ScatteredWrites(images_, image.virtual_size,
                                         image.cluster_size, 12, 1));
    return Content();
  }
  Bytes Content() const { return ReadHostFile(images_.path(kName)); }
  void Put(const Bytes& content) {
    WriteHostFile(images_.path(kName), content);
  }
  CheckReport Check(Repair repair = Repair::kNone) {
    return CheckImage(images_.options(kName), repair);
  }

  QemuImages images_;
};

TEST_F(CheckImageTest, LeaksAloneAreGivenBack) {
  Bytes image = MakePlain(4096);
  const Bytes disk = images_.Content(kName);
  Damages().at(0).apply(image);
  Put(image);
  const CheckReport report = Check(Repair::kLeaks);
  EXPECT_EQ(report.leaks_fixed, 3U);
  EXPECT_EQ(report.corruptions_fixed, 0U);
  EXPECT_EQ(ExitCode(report), 0);
  EXPECT_EQ(AskQemu(images_.OpenArguments(kName)).exit_code, 0);
  EXPECT_EQ(images_.Content(kName), disk);
}

TEST_F(CheckImageTest, LeaksAreKeptWhereMoreIsWrong) {
  Bytes image = MakePlain(4096);
  Damages().at(0).apply(image);
  Flip(image, DataEntries(image).at(0), kCopied);
  Put(image);
  const CheckReport report = Check(Repair::kLeaks);
  EXPECT_THAT(report.not_repaired,
              AllOf(HasSubstr(kName), HasSubstr("--repair all")));
  EXPECT_EQ(report.findings.count(Severity::kLeak), 3U);
  EXPECT_EQ(Content(), image);
}

// QEMU counts the references and is content.
TEST_F(CheckImageTest, ATableThatIsDataTooIsAHazardAndIsTakenApart) {
  Bytes image = MakePlain();
  const Places places(image);
  const uint64_t entry = DataEntries(image).at(0);
  StoreNumber(image, entry, 8, places.l1);
  Put(image);
  const Bytes disk = images_.Content(kName);
  const CheckReport before = Check();
  EXPECT_EQ(before.findings.count(FindingKind::kOverlap), 1U);
  EXPECT_THAT(
      TextsOf(before.findings),
      HasSubstr(fmt::format("{:#x} is referred to 2 times", places.l1)));
  const CheckReport after = Check(Repair::kAll);
  EXPECT_EQ(ExitCode(after), 0) << TextsOf(after.findings);
  EXPECT_EQ(after.findings.count(Severity::kHazard), 0U);
  EXPECT_EQ(after.hazards_fixed, 1U);
  EXPECT_EQ(AskQemu(images_.OpenArguments(kName)).exit_code, 0);
  EXPECT_EQ(images_.Content(kName), disk);
}

TEST_F(CheckImageTest, MarksAreClearedWhereNothingElseIsWrong) {
  const Bytes clean = MakePlain();
  for (const std::byte mark : {std::byte{1}, std::byte{2}, std::byte{3}}) {
    Bytes image = clean;
    image[79] |= mark;  // incompatible_features
    Put(image);
    const CheckReport before = Check();
    EXPECT_EQ(ExitCode(before), 0);
    EXPECT_EQ(before.findings.count(FindingKind::kMark),
              mark == std::byte{3} ? 2U : 1U);
    ASSERT_EQ(Content(), image);
    const CheckReport after = Check(Repair::kAll);
    EXPECT_EQ(after.findings.count(), 0U) << TextsOf(after.findings);
    EXPECT_EQ(Content().at(79), std::byte{0});
    EXPECT_EQ(AskQemu(images_.OpenArguments(kName)).exit_code, 0);
  }
}

TEST_F(CheckImageTest, TheMarkStaysWhereSomethingElseIsWrong) {
  Bytes image = MakePlain();
  const Places places(image);
  // The L2 table's own cluster as data.
  StoreNumber(image, DataEntries(image).at(0), 8, places.l2);
  image[79] |= std::byte{2};
  Put(image);
  const CheckReport after = Check(Repair::kAll);
  EXPECT_EQ(after.findings.count(Severity::kCorruption), 0U)
      << TextsOf(after.findings);
  if (after.findings.count(Severity::kHazard) != 0) {
    EXPECT_EQ(Content().at(79), std::byte{2});
  } else {
    EXPECT_EQ(Content().at(79), std::byte{0});
  }
  EXPECT_EQ(AskQemu(images_.OpenArguments(kName)).exit_code, 0);
}

TEST_F(CheckImageTest, CountsBehindTheEndAreAWarningAndGo) {
  Bytes image = MakePlain();
  const Places places(image);
  StoreNumber(image, places.block + 2000 * 2, 2, 1);
  Put(image);
  const CheckReport before = Check();
  ExpectSameVerdict(before, AskQemu(images_.OpenArguments(kName)));
  EXPECT_THAT(TextsOf(before.findings),
              HasSubstr("counts 1 clusters behind the end"));
  EXPECT_EQ(Check(Repair::kAll).findings.count(), 0U);
}

TEST_F(CheckImageTest, FindingsAreCountedButNotAllKept) {
  Bytes image = MakePlain();
  const Places places(image);
  for (uint64_t at = 0; at < places.cluster; at += 8) {
    StoreNumber(image, places.l2 + at, 8, 2);  // A reserved bit.
  }
  Put(image);
  const CheckReport report = Check();
  EXPECT_GE(report.findings.count(FindingKind::kEntry), 8192U);
  EXPECT_LE(report.findings.list().size(), 2 * Findings::kMaxKept);
  EXPECT_EQ(report.findings.list()[0].kind, FindingKind::kEntry);
  EXPECT_EQ(report.findings.list()[0].offset, places.l2);
  EXPECT_THAT(report.findings.list()[0].text,
              HasSubstr(fmt::format("L2 entry (byte {})", places.l2)));
}

TEST_F(CheckImageTest, ACheckChangesNoTimestamp) {
  Bytes image = MakePlain();
  Damages().at(1).apply(image);
  Put(image);
  timespec old[2] = {{1000000, 0}, {2000000, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, images_.path(kName).c_str(), old, 0), 0);
  Check();
  struct stat status = {};
  ASSERT_EQ(stat(images_.path(kName).c_str(), &status), 0);
  EXPECT_EQ(status.st_atim.tv_sec, 1000000);
  EXPECT_EQ(status.st_mtim.tv_sec, 2000000);
}

TEST_F(CheckImageTest, WhatIsNoImageCannotBeChecked) {
  Bytes image = MakePlain();
  StoreNumber(image, 20, 4, 30);  // cluster_bits
  Put(image);
  EXPECT_THAT(ThrownText<CorruptImage>([&] { Check(); }),
              HasSubstr("cluster_bits"));
}

TEST_F(CheckImageTest, ALostBackingFileIsNoReasonNotToCheck) {
  MakePlain();
  images_.Create({.name = "top.qcow2",
                  .encryption = "none",
                  .virtual_size = 3 << 20,
                  .more_options = {},
                  .backing = kName});
  std::filesystem::remove(images_.path(kName));
  OpenOptions options;
  options.image = images_.path("top.qcow2");
  const CheckReport report = CheckImage(options, Repair::kNone);
  EXPECT_EQ(ExitCode(report), 0);
  EXPECT_THAT(TextsOf(report.findings),
              AllOf(HasSubstr("top.qcow2"), HasSubstr("guest data"),
                    HasSubstr("disk.qcow2")));
}

// Real images of the manifest.
class CheckRealImageTest : public ::testing::TestWithParam<RealImage> {};

INSTANTIATE_TEST_SUITE_P(All, CheckRealImageTest,
                         ::testing::ValuesIn(RealImagesOf(
                             {"none", "aes", "luks", "luks1", "luks2"})),
                         [](const auto& test) {
                           std::string name = test.param.id;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_P(CheckRealImageTest, IsCleanAndQemuAgrees) {
  const RealImage& real = GetParam();
  if (real.must_be_refused) return;
  const OpenOptions options = real.options(Unpack(real));
  const CheckReport report = CheckImage(options, Repair::kNone);
  // Without a passphrase QEMU checks no encrypted image.
  if (report.format == "qcow2" && real.encryption == "none") {
    ExpectSameVerdict(report, AskQemu({"-f", "qcow2", options.image}));
  }
  // QEMU writes compressed clusters into encrypted images as plaintext.
  const uint64_t found = real.encryption == "luks" && real.compressed_clusters;
  EXPECT_EQ(report.findings.count(), found) << TextsOf(report.findings);
}

TEST_F(CheckImageTest, TheEmbeddedHeaderIsLookedAt) {
  const Bytes clean = MakePlain(65536, "luks");
  BorrowedDisk disk(clean);
  const qcow2::Header header = qcow2::ReadHeader(disk, kName);
  const uint64_t luks = header.crypto_header.value().offset;
  EXPECT_TRUE(Check().has_luks_header);
  EXPECT_EQ(Check().findings.count(), 0U);
  Bytes image = clean;
  // Key material of keyslot 0, sector 8.
  std::fill_n(image.begin() + static_cast<ptrdiff_t>(luks) + 8 * 512, 3 * 512,
              std::byte{0});
  Put(image);
  EXPECT_EQ(Check().findings.count(FindingKind::kKeyslot), 1U);
  EXPECT_THAT(TextsOf(Check().findings), HasSubstr("keyslot 0: 3 of the "));
  image = clean;
  image[luks] = std::byte{0};
  Put(image);
  EXPECT_EQ(Check().findings.count(FindingKind::kLuksHeader), 1U);
  EXPECT_THAT(TextsOf(Check().findings), HasSubstr("magic"));
}

}  // namespace
}  // namespace pellucid
