#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engine/qcow2/image_check.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid {
namespace {

constexpr uint64_t kSector = SyncedModel::kSector;

// What is written to an image while its disks are recorded.
struct Workload {
  std::string name;
  QemuImage image;
  uint64_t base_size = 0;    // Of a backing image; 0: none.
  bool has_content = false;  // QEMU wrote to it before.
  bool has_compressed = false;
  std::string external_data = "";  // data_file_raw: on, off; "": in the image.
  int snapshots = 0;
  std::function<void(ModelledImage& image, std::mt19937_64& random)> run;
};

void PrintTo(const Workload& workload, std::ostream* out) {
  *out << workload.name;
}

// Fresh clusters one behind the other, in requests of 3 KiB.
void Sequential(ModelledImage& image, std::mt19937_64&) {
  for (uint64_t at = 0; at + 6 <= image.sectors(); at += 6) {
    image.Write(at, 6);
    if (at % 96 == 90) image.Flush();
  }
}

void Random4k(ModelledImage& image, std::mt19937_64& random) {
  for (int i = 0; i < 150; ++i) {
    image.Write(random() % (image.sectors() / 8) * 8, 8);
    if (i % 12 == 11) image.Flush();
  }
}

void SmallAndUnaligned(ModelledImage& image, std::mt19937_64& random) {
  for (int i = 0; i < 150; ++i) {
    const uint64_t at = random() % (image.sectors() - 20);
    image.Write(at, 1 + random() % 20);
    if (random() % 12 == 0) image.Flush();
  }
}

// What is given back has to be reused, but not before it may be.
void DiscardAndReuse(ModelledImage& image, std::mt19937_64& random) {
  for (int i = 0; i < 200; ++i) {
    const uint64_t at = random() % (image.sectors() - 64);
    switch (random() % 5) {
      case 0:
        image.WriteZeroes(at, 1 + random() % 64, ZeroMode::kFreeSpace);
        break;
      case 1:
        image.WriteZeroes(at, 1 + random() % 64, ZeroMode::kKeepSpace);
        break;
      case 2:
        if (random() % 2 == 0) image.Flush();
        break;
      default:
        image.Write(at, 1 + random() % 32);
    }
  }
}

// Closed and opened again, with everything else in between.
void Reopening(ModelledImage& image, std::mt19937_64& random) {
  for (int i = 0; i < 4; ++i) {
    SmallAndUnaligned(image, random);
    image.Reopen();
  }
}

// Sectors of the same clusters, and fsyncs that overlap.
void ThreeThreads(ModelledImage& image, std::mt19937_64&) {
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&image, thread] {
      std::mt19937_64 random(thread);
      for (int i = 0; i < 80; ++i) {
        const uint64_t sector = random() % (image.sectors() / 3) * 3 + thread;
        if (random() % 8 == 0) {
          image.WriteZeroes(sector, 1, ZeroMode::kFreeSpace);
        } else {
          image.Write(sector, 1);
        }
        if (random() % 16 == 0) image.Flush();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

QemuImage Image(uint64_t cluster_size, uint64_t virtual_size,
                const std::string& encryption = "none",
                std::vector<std::string> more_options = {}) {
  return {.name = "disk.qcow2",
          .encryption = encryption,
          .cluster_size = cluster_size,
          .virtual_size = virtual_size,
          .more_options = std::move(more_options),
          .backing = ""};
}

QemuImage Extended(uint64_t virtual_size) {
  QemuImage image = Image(16384, virtual_size);
  image.extended_l2 = true;
  return image;
}

QemuImage Version2(uint64_t virtual_size) {
  QemuImage image = Image(4096, virtual_size);
  image.version2 = true;
  return image;
}

std::vector<Workload> Workloads() {
  constexpr uint64_t kSmall = 256 << 10;
  constexpr uint64_t kMiddle = 1 << 20;
  return {
      {.name = "SequentialInFreshImage",
       .image = Image(4096, kMiddle),
       .run = Sequential},
      {.name = "SequentialWithLargeClusters",
       .image = Image(65536, 2 * kMiddle),
       .run = Sequential},
      {.name = "Random4k", .image = Image(4096, kMiddle), .run = Random4k},
      {.name = "Random4kInLargeClusters",
       .image = Image(65536, 2 * kMiddle),
       .run = Random4k},
      {.name = "Version2", .image = Version2(kMiddle), .run = DiscardAndReuse},
      {.name = "OverwriteOfSnapshots",
       .image = Image(4096, kMiddle),
       .has_content = true,
       .snapshots = 2,
       .run = SmallAndUnaligned},
      {.name = "DiscardOfSnapshots",
       .image = Image(512, kSmall),
       .has_content = true,
       .snapshots = 2,
       .run = DiscardAndReuse},
      {.name = "DiscardAndReuse",
       .image = Image(4096, kMiddle),
       .has_content = true,
       .run = DiscardAndReuse},
      // Refcount blocks for 64 clusters, a table of 64 blocks: it grows at 2
      // MiB.
      {.name = "RefcountTableGrowth",
       .image = Image(512, 3 * kMiddle, "none", {"refcount_bits=64"}),
       .run =
           [](ModelledImage& image, std::mt19937_64&) {
             for (uint64_t at = 0; at + 64 <= image.sectors(); at += 64) {
               image.Write(at, 64);
               if (at % 1024 == 960) image.Flush();
             }
           }},
      {.name = "NarrowRefcounts",
       .image = Image(512, kSmall, "none", {"refcount_bits=1"}),
       .has_content = true,
       .run = DiscardAndReuse},
      {.name = "OverwriteOfCompressed",
       .image = Image(4096, kMiddle),
       .has_compressed = true,
       .run = SmallAndUnaligned},
      {.name = "OverwriteOfCompressedSnapshots",
       .image = Image(4096, kMiddle),
       .has_compressed = true,
       .snapshots = 1,
       .run = DiscardAndReuse},
      {.name = "ExtendedL2",
       .image = Extended(kMiddle),
       .has_content = true,
       .snapshots = 1,
       .run = DiscardAndReuse},
      {.name = "OverBacking",
       .image = Image(4096, kMiddle),
       .base_size = kMiddle - 100 * kSector,
       .has_content = true,
       .run = DiscardAndReuse},
      {.name = "ExtendedL2OverBacking",
       .image = Extended(kMiddle),
       .base_size = kMiddle,
       .has_content = true,
       .run = DiscardAndReuse},
      {.name = "EmbeddedLuks",
       .image = Image(4096, kMiddle, "luks"),
       .has_content = true,
       .snapshots = 1,
       .run = SmallAndUnaligned},
      {.name = "LegacyAes",
       .image = Image(4096, kMiddle, "aes"),
       .has_content = true,
       .run = DiscardAndReuse},
      {.name = "LazyRefcounts",
       .image = Image(4096, kMiddle, "none", {"lazy_refcounts=on"}),
       .has_content = true,
       .run = DiscardAndReuse},
      {.name = "ExternalData",
       .image = Image(4096, kMiddle),
       .has_content = true,
       .external_data = "off",
       .run = DiscardAndReuse},
      {.name = "RawExternalData",
       .image = Image(4096, kMiddle),
       .has_content = true,
       .external_data = "on",
       .run = DiscardAndReuse},
      {.name = "ThreeThreads",
       .image = Image(4096, kMiddle),
       .has_content = true,
       .snapshots = 1,
       .run = ThreeThreads},
      {.name = "ThreeThreadsEncrypted",
       .image = Image(16384, kMiddle, "luks"),
       .run = ThreeThreads},
      {.name = "Reopening", .image = Image(512, kSmall), .run = Reopening},
  };
}

class Qcow2CrashTest : public ::testing::TestWithParam<Workload> {
 protected:
  void MakeImage() {
    const Workload& workload = GetParam();
    QemuImage image = workload.image;
    if (workload.base_size != 0) {
      images_.Create({.name = "base.qcow2",
                      .encryption = "none",
                      .virtual_size = workload.base_size,
                      .more_options = {},
                      .backing = ""});
      images_.Write("base.qcow2",
                    ScatteredWrites(images_, workload.base_size, 65536, 30, 4));
      image.backing = "base.qcow2";
    }
    if (!workload.external_data.empty()) {
      image.more_options.push_back("data_file=" +
                                   images_.path("data").native());
      image.more_options.push_back("data_file_raw=" + workload.external_data);
    }
    images_.Create(image);
    if (workload.has_compressed) {
      std::vector<std::string> commands;
      const uint64_t clusters = image.virtual_size / image.cluster_size;
      for (uint64_t i = 0; i < clusters; i += 1 + i % 3) {
        commands.push_back(fmt::format("write -q -c -P {} {} {}", i % 250 + 1,
                                       i * image.cluster_size,
                                       image.cluster_size));
      }
      images_.Write(image.name, commands);
    }
    if (workload.has_content) {
      images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                                image.cluster_size, 25, 8));
    }
    for (int i = 0; i < workload.snapshots; ++i) {
      TakeSnapshot(images_, image.name, fmt::format("s{}", i));
      if (workload.has_content) {
        images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                                  image.cluster_size, 5, 9));
      }
    }
  }

  // A writer has to be able to go on from what the power cut left: nothing that
  // is in use may look free to it.
  static void GoOn(const ImageInMemory& image, const CrashPoint& point) {
    std::vector<Bytes> files;
    for (const auto& disk : point.disks) {
      files.emplace_back(disk.begin(), disk.end());
    }
    SyncedModel model(image.Content(files));
    CrashDisks disks(files);
    disks.StopRecording();
    ModelledImage writer(image, disks, model);
    std::mt19937_64 random(point.position);
    for (int i = 0; i < 60; ++i) {
      const uint64_t at = random() % (writer.sectors() - 20);
      writer.Write(at, 1 + random() % 20);
    }
    writer.Flush();
    ASSERT_EQ(model.CheckNow(writer.Content()), "") << point.description;
    writer.Close();
    ASSERT_EQ(model.CheckNow(image.Content(disks.contents())), "")
        << point.description;
    BorrowedDisk file(disks.contents()[0]);
    const qcow2::ImageCheck check = qcow2::CheckImage(
        file, "disk.qcow2", qcow2::ReadHeader(file, "disk.qcow2"));
    ASSERT_TRUE(check.is_sound())
        << point.description << testing::PrintToString(check.texts());
  }

  QemuImages images_;
};

INSTANTIATE_TEST_SUITE_P(All, Qcow2CrashTest, ::testing::ValuesIn(Workloads()),
                         [](const auto& test) { return test.param.name; });

TEST_P(Qcow2CrashTest, EveryPowerCutLeavesASoundImage) {
  const Workload& workload = GetParam();
  MakeImage();
  const ImageInMemory image(
      images_, "disk.qcow2",
      workload.image.backing.empty() && workload.base_size != 0 ? "base.qcow2"
                                                                : "");
  const Bytes before = image.Content(image.files());
  CrashDisks disks(image.files());
  SyncedModel model(before);
  std::vector<Bytes> snapshots;
  for (int i = 0; i < workload.snapshots; ++i) {
    snapshots.push_back(image.Content(image.files(), fmt::format("s{}", i)));
  }
  {
    ModelledImage writer(image, disks, model);
    std::mt19937_64 random(17);
    workload.run(writer, random);
    ASSERT_EQ(model.CheckNow(writer.Content()), "");
    writer.Flush();
  }
  for (int i = 0; i < workload.snapshots; ++i) {
    EXPECT_EQ(image.Content(disks.contents(), fmt::format("s{}", i)),
              snapshots[static_cast<size_t>(i)]);
  }
  image.Store(Spans(disks.contents()));
  ASSERT_EQ(QemuCheck(image.OpenArguments(), /*leaks_allowed=*/false), "");

  CrashJudge judge = JudgeOf(image, model, 97);
  uint64_t until_next = 0;
  bool failed = false;
  const uint64_t points =
      ForEachCrashPoint(disks, 2, 3, [&](const CrashPoint& point) {
        if (failed) return;
        const std::string wrong = judge.Judge(point);
        if (!wrong.empty()) {
          ADD_FAILURE() << wrong;
          failed = true;
        } else if (until_next-- == 0) {
          until_next = 60;
          GoOn(image, point);
          failed = HasFailure();
        }
      });
  EXPECT_GT(points, 300U);
  EXPECT_GE(judge.asked_qemu(), failed ? 0 : points / 100);
}

// Without barriers, power cuts do find references to what is not there, and
// synced sectors that are lost: the points that are tried can tell.
TEST(Qcow2CrashPointsTest, ADiskThatIgnoresFlushesIsFound) {
  QemuImages images;
  images.Create(Image(4096, 1 << 20));
  images.Write("disk.qcow2", ScatteredWrites(images, 1 << 20, 4096, 25, 8));
  TakeSnapshot(images, "disk.qcow2", "s");
  const ImageInMemory image(images, "disk.qcow2");
  SyncedModel model(image.Content(image.files()));
  CrashDisks disks(image.files());
  disks.IgnoreFlushes();
  {
    ModelledImage writer(image, disks, model);
    std::mt19937_64 random(17);
    DiscardAndReuse(writer, random);
    writer.Flush();
  }
  CrashJudge judge = JudgeOf(image, model, 0);
  const CrashFailures failures = CountFailures(judge, disks);
  EXPECT_GT(failures.corrupt, 20U);
  EXPECT_GT(failures.lost, 20U);
}

// The judge itself: a cluster that two entries share, and one byte that is not
// what was synced.
TEST(CrashJudgeTest, WrongImagesAreFound) {
  QemuImages images;
  images.Create(Image(4096, 1 << 20));
  images.Write("disk.qcow2", {"write -q -P 5 0 64k"});
  const ImageInMemory image(images, "disk.qcow2");
  SyncedModel model(image.Content(image.files()));
  CrashJudge judge = JudgeOf(image, model, 0);
  CrashPoint point;
  point.disks = Spans(image.files());
  EXPECT_EQ(judge.Judge(point), "");

  std::vector<Bytes> files = image.files();
  const uint64_t l1 = LoadNumber(files[0], 40, 8);
  const uint64_t l2 = LoadNumber(files[0], l1, 8) & 0x00ff'ffff'ffff'fe00;
  const uint64_t first = LoadNumber(files[0], l2, 8);
  StoreNumber(files[0], l2 + 8, 8, first);
  point.disks = Spans(files);
  EXPECT_NE(judge.Judge(point).find("corruptions"), std::string::npos);

  files = image.files();
  files[0][(first & 0x00ff'ffff'ffff'fe00) + 700] ^= std::byte{1};
  point.disks = Spans(files);
  EXPECT_NE(judge.Judge(point).find("sector 1 "), std::string::npos);
}

}  // namespace
}  // namespace pellucid
