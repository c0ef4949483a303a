// Images whose dirty bit is set: their refcounts are repaired by the first
// change, and not before.

#include "engine/qcow2/refcount_repair.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/qcow2/image_check.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/thrown_text.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid::qcow2 {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kOffset = 0x00ff'ffff'ffff'fe00;
constexpr uint64_t kCopiedFlag = uint64_t{1} << 63;

// A way to damage what a dirty image may have wrong.
using Damage = std::function<void(Bytes& image)>;

struct Variant {
  std::string name;
  QemuImage image;
  bool has_snapshot = false;
  Damage damage = {};  // None: QEMU is killed with refcounts in memory.
};

void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name;
}

QemuImage Image(uint64_t cluster_size, std::vector<std::string> more = {},
                const std::string& encryption = "none") {
  more.push_back("lazy_refcounts=on");
  return {.name = "disk.qcow2",
          .encryption = encryption,
          .cluster_size = cluster_size,
          .virtual_size = 1 << 20,
          .extended_l2 = cluster_size == 16384,
          .more_options = std::move(more),
          .backing = ""};
}

uint64_t RefcountTable(const Bytes& image) { return LoadNumber(image, 48, 8); }
uint64_t ClusterSize(const Bytes& image) {
  return uint64_t{1} << LoadNumber(image, 20, 4);
}

void SetDirty(Bytes& image) {
  image[79] |= std::byte{1};  // incompatible_features, bit 0.
}

// Noise over one refcount block.
void ScrambleRefcounts(Bytes& image) {
  const uint64_t block = LoadNumber(image, RefcountTable(image), 8);
  const Bytes noise = Noise(ClusterSize(image), 5);
  std::ranges::copy(noise, image.begin() + static_cast<ptrdiff_t>(block));
}

// Every refcount block that there is is forgotten.
void LoseRefcountBlocks(Bytes& image) {
  const uint64_t bytes = LoadNumber(image, 56, 4) * ClusterSize(image);
  for (uint64_t at = 0; at < bytes; at += 8) {
    StoreNumber(image, RefcountTable(image) + at, 8, 0);
  }
}

// Flags of the first L1 entry and of every third L2 entry.
void FlipCopiedFlags(Bytes& image) {
  const uint64_t l1 = LoadNumber(image, 40, 8);
  const uint64_t table = LoadNumber(image, l1, 8);
  StoreNumber(image, l1, 8, table ^ kCopiedFlag);
  for (uint64_t at = 0; at < ClusterSize(image); at += 24) {
    const uint64_t place = (table & kOffset) + at;
    const uint64_t entry = LoadNumber(image, place, 8);
    if ((entry & kOffset) != 0) {
      StoreNumber(image, place, 8, entry ^ kCopiedFlag);
    }
  }
}

std::vector<Variant> Variants() {
  return {
      {.name = "Killed", .image = Image(65536)},
      {.name = "KilledSmallClusters", .image = Image(512)},
      {.name = "KilledWideRefcounts",
       .image = Image(512, {"refcount_bits=64"})},
      {.name = "KilledSnapshot", .image = Image(4096), .has_snapshot = true},
      {.name = "KilledExtended", .image = Image(16384), .has_snapshot = true},
      {.name = "KilledLuks", .image = Image(4096, {}, "luks")},
      {.name = "Scrambled",
       .image = Image(4096),
       .has_snapshot = true,
       .damage = ScrambleRefcounts},
      {.name = "ScrambledNarrow",
       .image = Image(512, {"refcount_bits=1"}),
       .damage = ScrambleRefcounts},
      {.name = "LostBlocks",
       .image = Image(512),
       .has_snapshot = true,
       .damage = LoseRefcountBlocks},
      {.name = "LostBlocksOfLargeClusters",
       .image = Image(65536),
       .damage = LoseRefcountBlocks},
      {.name = "Flags",
       .image = Image(4096),
       .has_snapshot = true,
       .damage = FlipCopiedFlags},
      {.name = "ScrambledAndFlags",
       .image = Image(4096),
       .damage =
           [](Bytes& image) {
             ScrambleRefcounts(image);
             FlipCopiedFlags(image);
           }},
  };
}

// A dirty image.
class DirtyImage {
 public:
  explicit DirtyImage(const Variant& variant) {
    images_.Create(variant.image);
    images_.Write("disk.qcow2",
                  ScatteredWrites(images_, variant.image.virtual_size,
                                  variant.image.cluster_size, 12, 3));
    if (variant.has_snapshot) TakeSnapshot(images_, "disk.qcow2", "s");
    if (variant.damage) {
      images_.Write("disk.qcow2", {"write -q -P 7 300k 50k"});
      Bytes image = ReadHostFile(images_.path("disk.qcow2"));
      variant.damage(image);
      SetDirty(image);
      WriteHostFile(images_.path("disk.qcow2"), image);
    } else {
      Kill();
    }
  }

  QemuImages& images() { return images_; }

 private:
  // QEMU writes, and dies with the refcounts in its memory.
  void Kill() {
    std::vector<std::string> command = {"qemu-io"};
    const auto open = images_.OpenArguments("disk.qcow2");
    command.insert(command.end(), open.begin(), open.end());
    for (const char* io : {"write -q -P 7 300k 150k", "discard -q 310k 20k",
                           "write -q -P 8 900k 5k", "flush", "sigraise 9"}) {
      command.insert(command.end(), {"-c", io});
    }
    const ProgramResult result = RunProgram(command);
    if (result.exit_code != 128 + 9) {
      throw std::runtime_error("qemu-io was not killed: " + result.err);
    }
  }

  QemuImages images_;
};

Header HeaderOf(const Bytes& file) {
  BorrowedDisk disk(file);
  return ReadHeader(disk, "disk.qcow2");
}

bool IsDirty(const Bytes& file) { return HeaderOf(file).has(kDirty); }

ImageCheck Check(const Bytes& file) {
  BorrowedDisk disk(file);
  return CheckImage(disk, "disk.qcow2", HeaderOf(file));
}

void Exercise(ModelledImage& image, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < 30; ++i) {
    const uint64_t at = random() % (image.sectors() - 40);
    const uint64_t length = 1 + random() % 40;
    if (i % 4 == 0) {
      image.WriteZeroes(at, length, ZeroMode::kFreeSpace);
    } else {
      image.Write(at, length);
    }
  }
  image.Flush();
}

class RefcountRepairTest : public ::testing::TestWithParam<Variant> {
 protected:
  RefcountRepairTest()
      : dirty_(GetParam()),
        image_(dirty_.images(), "disk.qcow2"),
        content_(image_.Content(image_.files())) {
    if (GetParam().has_snapshot) {
      snapshot_ = image_.Content(image_.files(), "s");
    }
  }

  void ExpectSound(const std::vector<Bytes>& files) {
    EXPECT_FALSE(IsDirty(files[0]));
    const ImageCheck check = Check(files[0]);
    EXPECT_TRUE(check.is_sound()) << testing::PrintToString(check.texts());
    EXPECT_EQ(check.leaks, 0U);
    image_.Store(Spans(files));
    EXPECT_EQ(QemuCheck(image_.OpenArguments(), /*leaks_allowed=*/false), "");
    if (GetParam().has_snapshot) {
      EXPECT_EQ(image_.Content(files, "s"), snapshot_);
    }
  }

  DirtyImage dirty_;
  const ImageInMemory image_;
  const Bytes content_;
  Bytes snapshot_;
};

INSTANTIATE_TEST_SUITE_P(All, RefcountRepairTest,
                         ::testing::ValuesIn(Variants()),
                         [](const auto& test) { return test.param.name; });

TEST_P(RefcountRepairTest, SomethingIsWrongAtFirst) {
  ASSERT_TRUE(IsDirty(image_.files()[0]));
  const ImageCheck check = Check(image_.files()[0]);
  EXPECT_GT(check.corruptions + check.leaks, 0U);
}

TEST_P(RefcountRepairTest, WithoutAWriteNoByteChanges) {
  CrashDisks disks(image_.files());
  SyncedModel model(content_);
  ModelledImage writer(image_, disks, model);
  EXPECT_EQ(FirstDifference(writer.Content(), content_), "");
  writer.Flush();
  writer.Reopen();
  EXPECT_EQ(disks.contents(), image_.files());
}

TEST_P(RefcountRepairTest, FirstWriteRepairs) {
  CrashDisks disks(image_.files());
  SyncedModel model(content_);
  {
    ModelledImage writer(image_, disks, model);
    // The entries are in the cache, with wrong flags, when they are repaired.
    writer.Content();
    writer.Write(1, 1);
    writer.Flush();
    ExpectSound(disks.contents());
    Exercise(writer, 1);
    EXPECT_EQ(model.CheckNow(writer.Content()), "");
  }
  EXPECT_EQ(model.CheckNow(image_.Content(disks.contents())), "");
  ExpectSound(disks.contents());
}

TEST_P(RefcountRepairTest, PowerCutsLeaveWhatCanBeRepairedAgain) {
  CrashDisks disks(image_.files());
  SyncedModel model(content_);
  {
    ModelledImage writer(image_, disks, model);
    Exercise(writer, 2);
  }
  CrashJudge judge = JudgeOf(image_, model, 41);
  uint64_t dirty = 0;
  uint64_t number = 0;
  bool failed = false;
  ForEachCrashPoint(disks, 4, 3, [&](const CrashPoint& point) {
    if (failed) return;
    const std::string wrong = judge.Judge(point);
    EXPECT_EQ(wrong, "");
    std::vector<Bytes> files;
    for (const auto& disk : point.disks) {
      files.emplace_back(disk.begin(), disk.end());
    }
    const bool is_dirty = IsDirty(files[0]);
    dirty += is_dirty ? 1 : 0;
    if (is_dirty || number++ % 40 == 0) {
      CrashDisks again(files);
      SyncedModel content(image_.Content(files));
      {
        ModelledImage writer(image_, again, content);
        Exercise(writer, point.position);
      }
      EXPECT_EQ(content.CheckNow(image_.Content(again.contents())), "");
      const ImageCheck check = Check(again.contents()[0]);
      EXPECT_TRUE(check.is_sound())
          << point.description << testing::PrintToString(check.texts());
      if (is_dirty) {
        EXPECT_EQ(check.leaks, 0U) << point.description;
      }
      EXPECT_FALSE(IsDirty(again.contents()[0]));
    }
    failed = HasFailure();
  });
  EXPECT_GT(dirty, 3U);
}

// The host fails at the n-th change, for every n of the repair: once and for a
// while.
TEST_P(RefcountRepairTest, FailedRepairIsDoneAgain) {
  for (const uint64_t count : {1U, 3U}) {
    uint64_t failures = 1;
    for (uint64_t n = 0; failures != 0 && n < 40; ++n) {
      SCOPED_TRACE(testing::Message() << count << " errors from change " << n);
      CrashDisks disks(image_.files());
      SyncedModel model(content_);
      ModelledImage writer(image_, disks, model);
      disks.FailChanges(n, count, n % 2 == 0 ? ENOSPC : EIO);
      bool done = false;
      for (int attempt = 0; !done && attempt < 5; ++attempt) {
        try {
          writer.Write(8, 3);
          done = true;
        } catch (const IoError&) {
        }
      }
      EXPECT_TRUE(done);
      failures = disks.StopFailing();
      Exercise(writer, n);
      writer.Close();
      ASSERT_EQ(model.CheckNow(image_.Content(disks.contents())), "");
      const ImageCheck check = Check(disks.contents()[0]);
      ASSERT_TRUE(check.is_sound()) << testing::PrintToString(check.texts());
      EXPECT_FALSE(IsDirty(disks.contents()[0]));
    }
  }
}

// More than refcounts is wrong, so that what was counted proves nothing.
TEST(RefcountRepairRefusalTest, OtherDamageIsRefusedBeforeThePassphrase) {
  const std::vector<Damage> damages = {
      // A reserved bit in the first L2 entry, and a place off the clusters.
      [](Bytes& image) {
        const uint64_t l1 = LoadNumber(image, 40, 8);
        const uint64_t table = LoadNumber(image, l1, 8) & kOffset;
        StoreNumber(image, table, 8, LoadNumber(image, table, 8) | 2);
      },
      [](Bytes& image) {
        const uint64_t l1 = LoadNumber(image, 40, 8);
        const uint64_t table = LoadNumber(image, l1, 8) & kOffset;
        StoreNumber(image, table, 8, (image.size() + (1 << 20)) | kCopiedFlag);
      },
      // An L2 entry that refers to its own table.
      [](Bytes& image) {
        const uint64_t l1 = LoadNumber(image, 40, 8);
        const uint64_t table = LoadNumber(image, l1, 8);
        StoreNumber(image, table & kOffset, 8, table);
      },
      // A refcount block that is not at a cluster.
      [](Bytes& image) {
        StoreNumber(image, RefcountTable(image), 8,
                    LoadNumber(image, RefcountTable(image), 8) + 512);
      }};
  for (size_t i = 0; i < damages.size(); ++i) {
    SCOPED_TRACE(i);
    QemuImages images;
    images.Create(Image(4096, {}, "luks"));
    images.Write("disk.qcow2", {"write -q -P 7 0 50k"});
    Bytes image = ReadHostFile(images.path("disk.qcow2"));
    damages[i](image);
    SetDirty(image);
    WriteHostFile(images.path("disk.qcow2"), image);

    OpenOptions options = images.options("disk.qcow2");
    options.writable = true;
    KnownPassphrases passphrases = images.passphrases();
    EXPECT_THAT(
        ThrownText<CorruptImage>([&] { OpenImage(options, passphrases); }),
        AllOf(HasSubstr("disk.qcow2"), HasSubstr("dirty bit"),
              HasSubstr("--read-only"),
              HasSubstr("`pellucid check --repair all "),
              HasSubstr("disk.qcow2`")));
    EXPECT_EQ(passphrases.given(), 0);
    options.writable = false;
    EXPECT_EQ(OpenImage(options, passphrases).device->size(), 1U << 20);
    EXPECT_EQ(ReadHostFile(images.path("disk.qcow2")), image);
  }
}

TEST(RefcountRepairRefusalTest, UseBehindTheReachOfTheTableIsRefused) {
  QemuImages images;
  QemuImage wide = Image(512, {"refcount_bits=64"});
  images.Create(wide);
  images.Write("disk.qcow2", {"write -q -P 7 0 900k"});
  Bytes image = ReadHostFile(images.path("disk.qcow2"));
  // The table covers 64 blocks of 64 clusters, 2 MiB.
  ASSERT_EQ(LoadNumber(image, 56, 4), 1U);
  image.resize(3 << 20);
  const uint64_t l1 = LoadNumber(image, 40, 8);
  const uint64_t table = LoadNumber(image, l1, 8) & kOffset;
  StoreNumber(image, table, 8, (5 << 19) | kCopiedFlag);
  SetDirty(image);
  WriteHostFile(images.path("disk.qcow2"), image);
  OpenOptions options = images.options("disk.qcow2");
  options.writable = true;
  KnownPassphrases passphrases;
  EXPECT_THAT(
      ThrownText<CorruptImage>([&] { OpenImage(options, passphrases); }),
      HasSubstr("0x280000"));
}

// Of an image in a file, through the whole stack.
TEST(RefcountRepairOpenTest, DirtyImageOpensForReadingAndForWriting) {
  DirtyImage dirty(Variants()[0]);
  const Bytes before = ReadHostFile(dirty.images().path("disk.qcow2"));
  OpenOptions options = dirty.images().options("disk.qcow2");
  KnownPassphrases passphrases;
  Bytes content;
  for (const bool writable : {false, true}) {
    options.writable = writable;
    const OpenedImage opened = OpenImage(options, passphrases);
    content = ReadAll(*opened.device);
    if (writable) opened.writable->Flush();
  }
  EXPECT_EQ(ReadHostFile(dirty.images().path("disk.qcow2")), before);
  {
    const OpenedImage opened = OpenImage(options, passphrases);
    const Bytes data = Noise(100 << 10, 4);
    opened.writable->Write(5000, data);
    opened.writable->Flush();
    std::ranges::copy(data, content.begin() + 5000);
  }
  EXPECT_FALSE(IsDirty(ReadHostFile(dirty.images().path("disk.qcow2"))));
  EXPECT_EQ(QemuCheck(dirty.images().OpenArguments("disk.qcow2"), false), "");
  EXPECT_EQ(dirty.images().Content("disk.qcow2"), content);
}

// Nobody keeps the bitmaps up to date here: their autoclear bit goes, and with
// it, for QEMU, what refers to their clusters. That leaks them and nothing
// else.
TEST(BitmapsTest, WritesLeakTheBitmapsClustersAndNothingElse) {
  QemuImages images;
  QemuImage image = Image(65536);
  images.Create(image);
  RunTool({"qemu-img", "bitmap", "--add", images.path("disk.qcow2"), "b"});
  images.Write("disk.qcow2", {"write -q -P 7 300k 150k"});
  ASSERT_EQ(QemuCheck(images.OpenArguments("disk.qcow2"), false), "");
  Bytes content = images.Content("disk.qcow2");
  {
    OpenOptions options = images.options("disk.qcow2");
    options.writable = true;
    KnownPassphrases passphrases;
    const OpenedImage opened = OpenImage(options, passphrases);
    const Bytes data = Noise(400 << 10, 4);
    opened.writable->Write(200 << 10, data);
    opened.writable->Flush();
    std::ranges::copy(data, content.begin() + (200 << 10));
  }
  EXPECT_EQ(QemuCheck(images.OpenArguments("disk.qcow2"), true), "");
  const ImageCheck check = Check(ReadHostFile(images.path("disk.qcow2")));
  EXPECT_TRUE(check.is_sound());
  // The directory, the table, and what the bitmap holds.
  EXPECT_LE(check.leaks, 3U);
  EXPECT_GE(check.leaks, 2U);
  EXPECT_EQ(images.Content("disk.qcow2"), content);
  RunTool(
      {"qemu-img", "check", "-q", "-r", "leaks", images.path("disk.qcow2")});
  images.Write("disk.qcow2", {"write -q -P 9 0 900k"});
  EXPECT_EQ(QemuCheck(images.OpenArguments("disk.qcow2"), false), "");
}

// Refcounts are written with everything else, so the bit is never needed.
TEST(LazyRefcountsTest, ImageIsNeverDirtyAndSoundAtEveryFlush) {
  QemuImages images;
  images.Create(Image(4096));
  images.Write("disk.qcow2", ScatteredWrites(images, 1 << 20, 4096, 12, 3));
  const ImageInMemory image(images, "disk.qcow2");
  CrashDisks disks(image.files());
  SyncedModel model(image.Content(image.files()));
  ModelledImage writer(image, disks, model);
  for (uint64_t i = 0; i < 10; ++i) {
    Exercise(writer, i);
    image.Store(Spans(disks.contents()));
    ASSERT_EQ(QemuCheck(image.OpenArguments(), /*leaks_allowed=*/false), "");
  }
  ForEachCrashPoint(disks, 0, 1, [&](const CrashPoint& point) {
    EXPECT_FALSE(IsDirty({point.disks[0].begin(), point.disks[0].end()}));
  });
}

}  // namespace
}  // namespace pellucid::qcow2
