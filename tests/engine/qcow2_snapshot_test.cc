#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/qcow2/snapshot_changes.h"
#include "engine/qcow2/snapshots.h"
#include "tests/engine/crash_judge.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/image_states_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

constexpr const char* kName = "disk.qcow2";

void Create(CrashDisks& disks, const std::string& name) {
  qcow2::CreateSnapshot(*disks.Open(), kName, {.name = name});
}

void QemuSnapshot(const ImageInMemory& image, const char* action,
                  const std::string& name) {
  std::vector<std::string> command = {"qemu-img", "snapshot", action, name};
  const std::vector<std::string> open = image.OpenArguments();
  command.insert(command.end(), open.begin(), open.end());
  RunTool(command);
}

class Qcow2SnapshotTest : public ::testing::TestWithParam<ChangedImage> {
 protected:
  void SetUp() override { Make(GetParam(), images_); }

  QemuImages images_;
};

INSTANTIATE_TEST_SUITE_P(All, Qcow2SnapshotTest,
                         ::testing::ValuesIn(ChangedImages()),
                         [](const auto& test) { return test.param.name; });

TEST_P(Qcow2SnapshotTest, CreationIsAtomic) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates after = StatesOf(image, Spans(image.files()));
  after["new"] = after[""];
  ExpectAtomic(
      image, [](CrashDisks& disks) { Create(disks, "new"); }, after);
}

TEST_P(Qcow2SnapshotTest, DeletionIsAtomic) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates after = StatesOf(image, Spans(image.files()));
  after.erase("q0");
  ExpectAtomic(
      image,
      [](CrashDisks& disks) {
        qcow2::DeleteSnapshot(*disks.Open(), kName, "q0");
      },
      after);
}

TEST_P(Qcow2SnapshotTest, ApplicationIsAtomic) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates after = StatesOf(image, Spans(image.files()));
  after[""] = after["q0"];
  ExpectAtomic(
      image,
      [](CrashDisks& disks) {
        qcow2::ApplySnapshot(*disks.Open(), kName, "q0");
      },
      after);
}

// A long life in random steps, ours, those of our writer and QEMU's.
TEST_P(Qcow2SnapshotTest, RandomStepsKeepEveryState) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates states = StatesOf(image, Spans(image.files()));
  std::vector<Bytes> files = image.files();
  std::mt19937_64 random(3);
  int created = 0;
  for (int i = 0; i < 24; ++i) {
    CrashDisks disks(files);
    disks.StopRecording();
    std::vector<std::string> names;
    for (const auto& state : states) {
      if (!state.first.empty()) names.push_back(state.first);
    }
    const std::string any = names.empty() ? "" : names[random() % names.size()];
    const uint64_t step = random() % 6;
    if (step == 0 && names.size() < 5) {
      const std::string name = fmt::format("ours{}", created++);
      Create(disks, name);
      states[name] = states[""];
    } else if (step == 1 && !any.empty()) {
      qcow2::DeleteSnapshot(*disks.Open(), kName, any);
      states.erase(any);
    } else if (step == 2 && !any.empty()) {
      qcow2::ApplySnapshot(*disks.Open(), kName, any);
      states[""] = states[any];
    } else if (step == 3 && !any.empty()) {
      image.Store(Spans(files));
      const bool apply = random() % 2 == 0;
      QemuSnapshot(image, apply ? "-a" : "-d", any);
      if (apply) {
        states[""] = states[any];
      } else {
        states.erase(any);
      }
      disks.Open()->Resize(0);
      disks.Open()->Write(0, ReadHostFile(images_.path(kName)));
    } else {
      SyncedModel model(states[""]);
      ModelledImage writer(image, disks, model);
      for (int j = 0; j < 20; ++j) {
        const uint64_t at = random() % (writer.sectors() - 40);
        if (random() % 4 == 0) {
          writer.WriteZeroes(at, 1 + random() % 40, ZeroMode::kFreeSpace);
        } else {
          writer.Write(at, 1 + random() % 40);
        }
      }
      writer.Flush();
      states[""] = writer.Content();
      ASSERT_EQ(model.CheckNow(states[""]), "");
      writer.Flush();
    }
    files = disks.contents();
    ASSERT_EQ(DifferenceOf(StatesOf(image, Spans(files)), states), "")
        << "step " << i << ": " << step << " with " << any;
    ExpectFlawless(image, files);
    ASSERT_FALSE(HasFailure()) << "step " << i << ": " << step;
  }
}

// One image in the files of QEMU.
class SnapshotEntriesTest : public ::testing::Test {
 protected:
  void MakeImage(std::vector<std::string> options = {}, uint64_t size = 1 << 20,
                 bool version2 = false) {
    images_.Create({.name = kName,
                    .encryption = "none",
                    .cluster_size = 4096,
                    .virtual_size = size,
                    .version2 = version2,
                    .more_options = std::move(options),
                    .backing = ""});
    images_.Write(kName, {"write -q -P 1 0 64k", "write -q -P 2 512k 64k"});
  }
  std::vector<qcow2::Snapshot> Read(CrashDisks& disks) {
    const auto file = disks.Open();
    return qcow2::ReadSnapshots(*file, kName, qcow2::ReadHeader(*file, kName));
  }

  QemuImages images_;
};

TEST_F(SnapshotEntriesTest, EntryIsWhatQemuWrites) {
  MakeImage();
  TakeSnapshot(images_, kName, "theirs");
  const ImageInMemory image(images_, kName);
  CrashDisks disks(image.files());
  EXPECT_EQ(qcow2::CreateSnapshot(*disks.Open(), kName,
                                  {.name = "ours",
                                   .date_seconds = 1700000000,
                                   .date_nanoseconds = 123000000}),
            "2");
  const auto snapshots = Read(disks);
  ASSERT_EQ(snapshots.size(), 2U);
  EXPECT_EQ(snapshots[1].info.id, "2");
  EXPECT_EQ(snapshots[1].info.name, "ours");
  EXPECT_EQ(snapshots[1].info.date_seconds, 1700000000);
  EXPECT_EQ(snapshots[1].info.date_nanoseconds, 123000000U);
  EXPECT_EQ(snapshots[1].info.virtual_size, 1U << 20);
  // Extra data as long as QEMU's, and as the specification has it: no VM
  // state, the size, and -1 for want of a count of instructions, where qemu-img
  // has 0.
  const Bytes& file = disks.contents()[0];
  const uint64_t theirs = snapshots[0].entry_offset;
  const uint64_t ours = snapshots[1].entry_offset;
  EXPECT_EQ(LoadNumber(file, ours + 36, 4), LoadNumber(file, theirs + 36, 4));
  EXPECT_EQ(LoadNumber(file, ours + 40, 8), 0U);
  EXPECT_EQ(LoadNumber(file, ours + 48, 8), 1U << 20);
  EXPECT_EQ(LoadNumber(file, ours + 56, 8), UINT64_MAX);
  image.Store(Spans(disks.contents()));
  EXPECT_THAT(RunTool({"qemu-img", "snapshot", "-l", images_.path(kName)}),
              HasSubstr("ours"));
}

TEST_F(SnapshotEntriesTest, NamesThatNobodyCouldTellApartAreRefused) {
  MakeImage();
  TakeSnapshot(images_, kName, "taken");
  const ImageInMemory image(images_, kName);
  CrashDisks disks(image.files());
  for (const std::string& name : {std::string("taken"), std::string("1"),
                                  std::string(), std::string(256, 'x')}) {
    EXPECT_THROW(Create(disks, name), UsageError) << name;
  }
  EXPECT_EQ(disks.changes(), 0U);
  Create(disks, std::string(255, 'x'));
  // "3" would be the next id.
  Create(disks, "4");
  Create(disks, "another");
  EXPECT_EQ(Read(disks).back().info.id, "5");
  EXPECT_THAT(ThrownText<UsageError>([&] {
                qcow2::DeleteSnapshot(*disks.Open(), kName, "absent");
              }),
              HasSubstr("there is no snapshot \"absent\""));
}

TEST_F(SnapshotEntriesTest, NarrowRefcountsAreRefusedBeforeAnythingChanges) {
  MakeImage({"refcount_bits=1"});
  const ImageInMemory image(images_, kName);
  CrashDisks disks(image.files());
  EXPECT_THAT(ThrownText<Unsupported>([&] { Create(disks, "s"); }),
              HasSubstr("refcounts of 1 bits"));
  EXPECT_EQ(disks.changes(), 0U);
}

TEST_F(SnapshotEntriesTest, RefcountsOfTwoBitsCountTwoSnapshots) {
  MakeImage({"refcount_bits=2"});
  const ImageInMemory image(images_, kName);
  CrashDisks disks(image.files());
  Create(disks, "a");
  Create(disks, "b");
  const uint64_t changes = disks.changes();
  EXPECT_THROW(Create(disks, "c"), Unsupported);
  EXPECT_EQ(disks.changes(), changes);
  ExpectFlawless(image, disks.contents());
}

TEST_F(SnapshotEntriesTest, ExternalDataFileIsRefusedByName) {
  MakeImage({fmt::format("data_file={}",
                         (images_.folder() / "external.raw").native())});
  CrashDisks disks(ReadHostFile(images_.path(kName)));
  EXPECT_THAT(ThrownText<Unsupported>([&] { Create(disks, "s"); }),
              HasSubstr("external.raw"));
  EXPECT_EQ(disks.changes(), 0U);
}

TEST_F(SnapshotEntriesTest, DamagedTablesAreNotChanged) {
  MakeImage();
  const ImageInMemory image(images_, kName);
  std::vector<Bytes> files = image.files();
  const uint64_t l1 = LoadNumber(files[0], 40, 8);
  const uint64_t l2 = LoadNumber(files[0], l1, 8) & 0x00ff'ffff'ffff'fe00;
  StoreNumber(files[0], l2 + 8, 8, LoadNumber(files[0], l2, 8));
  CrashDisks disks(files);
  EXPECT_THROW(Create(disks, "s"), CorruptImage);
  EXPECT_EQ(disks.changes(), 0U);
}

// Each snapshot has the size that the disk had then.
TEST_F(SnapshotEntriesTest, ApplicationBringsBackTheSize) {
  MakeImage();
  TakeSnapshot(images_, kName, "small");
  RunTool({"qemu-img", "resize", "-q", images_.path(kName), "5M"});
  images_.Write(kName, {"write -q -P 5 4M 64k"});
  TakeSnapshot(images_, kName, "large");
  const ImageInMemory image(images_, kName);
  const ImageStates before = StatesOf(image, Spans(image.files()));
  ImageStates after = before;
  after[""] = before.at("small");
  ASSERT_EQ(after[""].size(), 1U << 20);
  ExpectAtomic(
      image,
      [](CrashDisks& disks) {
        qcow2::ApplySnapshot(*disks.Open(), kName, "small");
      },
      after);
  CrashDisks disks(image.files());
  qcow2::ApplySnapshot(*disks.Open(), kName, "small");
  qcow2::ApplySnapshot(*disks.Open(), kName, "large");
  EXPECT_EQ(DifferenceOf(StatesOf(image, Spans(disks.contents())), before), "");
}

// Bitmaps stay right as long as the guest's bytes do not change.
TEST_F(SnapshotEntriesTest, BitmapsStayUntilTheContentChanges) {
  MakeImage();
  RunTool({"qemu-img", "bitmap", "--add", images_.path(kName), "b"});
  const ImageInMemory image(images_, kName);
  CrashDisks disks(image.files());
  // And a bit that nobody knows goes at once.
  const Bytes unknown = {std::byte{0x80}};
  disks.Open()->Write(88, unknown);
  Create(disks, "s");
  EXPECT_EQ(LoadNumber(disks.contents()[0], 88, 8), 1U);
  ExpectFlawless(image, disks.contents());
  EXPECT_THAT(RunTool({"qemu-img", "info", images_.path(kName)}),
              HasSubstr("bitmaps"));
  qcow2::ApplySnapshot(*disks.Open(), kName, "s");
  EXPECT_EQ(LoadNumber(disks.contents()[0], 88, 8), 0U);
  ExpectFlawless(image, disks.contents());
}

// The refcounts and copied flags of a dirty image are made from what refers to
// clusters.
TEST_F(SnapshotEntriesTest, DirtyImagesAreRepaired) {
  MakeImage({"lazy_refcounts=on"});
  TakeSnapshot(images_, kName, "q0");
  images_.Write(kName, {"write -q -P 3 32k 64k"});
  const ImageInMemory image(images_, kName);
  ImageStates after = StatesOf(image, Spans(image.files()));
  std::vector<Bytes> files = image.files();
  StoreNumber(files[0], 79, 1, 1);
  const uint64_t table = LoadNumber(files[0], 48, 8);
  const uint64_t block = LoadNumber(files[0], table, 8);
  for (uint64_t i = 3; i < 40; i += 2)
    StoreNumber(files[0], block + 2 * i, 2, i % 3);
  StoreNumber(files[0], block + 2 * 500, 2, 1);
  const uint64_t l1 = LoadNumber(files[0], 40, 8);
  const uint64_t l2 = LoadNumber(files[0], l1, 8) & 0x00ff'ffff'ffff'fe00;
  files[0][l2] ^= std::byte{0x80};
  const auto change = [&](auto make) {
    CrashDisks disks(files);
    make(disks);
    EXPECT_EQ(DifferenceOf(StatesOf(image, Spans(disks.contents())), after),
              "");
    EXPECT_EQ(LoadNumber(disks.contents()[0], 72, 8), 0U);
    ExpectFlawless(image, disks.contents());
  };
  after["new"] = after[""];
  change([](CrashDisks& disks) { Create(disks, "new"); });
  after.erase("new");
  after.erase("q0");
  change([](CrashDisks& disks) {
    qcow2::DeleteSnapshot(*disks.Open(), kName, "q0");
  });
}

// Leaked clusters may be somebody's; they are not given away.
TEST_F(SnapshotEntriesTest, LeakedClustersStayLeaked) {
  MakeImage();
  std::vector<Bytes> files = ImageInMemory(images_, kName).files();
  const uint64_t table = LoadNumber(files[0], 48, 8);
  const uint64_t block = LoadNumber(files[0], table, 8);
  const uint64_t free = files[0].size() / 4096;
  files[0].resize((free + 1) * 4096);
  StoreNumber(files[0], block + free * 2, 2, 1);
  const Bytes mark = Noise(4096, 5);
  std::ranges::copy(mark,
                    files[0].begin() + static_cast<ptrdiff_t>(free * 4096));
  CrashDisks disks(files);
  Create(disks, "a");
  qcow2::DeleteSnapshot(*disks.Open(), kName, "a");
  const auto begin =
      disks.contents()[0].begin() + static_cast<ptrdiff_t>(free * 4096);
  EXPECT_TRUE(Bytes(begin, begin + 4096) == mark);
  const uint64_t new_table = LoadNumber(disks.contents()[0], 48, 8);
  const uint64_t new_block = LoadNumber(disks.contents()[0], new_table, 8);
  EXPECT_EQ(LoadNumber(disks.contents()[0], new_block + free * 2, 2), 1U);
}

// Its refcount stays above 1, so it must not get the copied flag.
TEST_F(SnapshotEntriesTest, ClustersThatAreCountedTooOftenAreNotCalledOwn) {
  MakeImage();
  const ImageInMemory image(images_, kName);
  std::vector<Bytes> files = image.files();
  const uint64_t block = LoadNumber(files[0], LoadNumber(files[0], 48, 8), 8);
  const uint64_t l1 = LoadNumber(files[0], 40, 8);
  const uint64_t table = LoadNumber(files[0], l1, 8) & 0x00ff'ffff'ffff'fe00;
  const uint64_t data = LoadNumber(files[0], table, 8) & 0x00ff'ffff'ffff'fe00;
  ASSERT_NE(data, 0U);
  for (const auto& [entry, cluster] :
       {std::pair(l1, table), std::pair(table, data)}) {
    StoreNumber(files[0], entry, 8, cluster);
    StoreNumber(files[0], block + cluster / 4096 * 2, 2, 2);
  }
  CrashDisks disks(files);
  Create(disks, "a");
  qcow2::DeleteSnapshot(*disks.Open(), kName, "a");
  image.Store(Spans(disks.contents()));
  EXPECT_EQ(QemuCheck(image.OpenArguments(), /*leaks_allowed=*/true), "");
}

// Without barriers, power cuts do find an image that names tables which are
// not there: the points that are tried can tell.
TEST_F(SnapshotEntriesTest, ADiskThatIgnoresFlushesIsFound) {
  ChangedImage changed;
  changed.image = {.name = kName,
                   .encryption = "none",
                   .cluster_size = 512,
                   .virtual_size = 256 << 10,
                   .more_options = {},
                   .backing = ""};
  Make(changed, images_);
  const ImageInMemory image(images_, kName);
  const ImageStates before = StatesOf(image, Spans(image.files()));
  ImageStates after = before;
  after["s"] = before.at("");
  CrashDisks disks(image.files());
  disks.IgnoreFlushes();
  Create(disks, "s");
  uint64_t lost = 0;
  ForEachCrashPoint(disks, 3, 5, [&](const CrashPoint& point) {
    try {
      const ImageStates found = StatesOf(image, point.disks);
      if (!DifferenceOf(found, before).empty() &&
          !DifferenceOf(found, after).empty()) {
        ++lost;
      }
    } catch (const Error&) {
      ++lost;
    }
  });
  EXPECT_GT(lost, 5U);
}

// What the host cannot store leaves the image as it was.
TEST_F(SnapshotEntriesTest, FailedWritesChangeNothing) {
  MakeImage();
  TakeSnapshot(images_, kName, "q0");
  const ImageInMemory image(images_, kName);
  const ImageStates before = StatesOf(image, Spans(image.files()));
  ImageStates after = before;
  after["s"] = before.at("");
  bool succeeded = false;
  for (uint64_t n = 0; !succeeded && n < 1000; ++n) {
    CrashDisks disks(image.files());
    disks.FailChanges(n, 1, ENOSPC);
    bool failed = false;
    try {
      Create(disks, "s");
    } catch (const IoError&) {
      failed = true;
    }
    succeeded = disks.StopFailing() == 0;
    EXPECT_EQ(failed, !succeeded) << n;
    const ImageStates found = StatesOf(image, Spans(disks.contents()));
    EXPECT_TRUE(DifferenceOf(found, before).empty() ||
                DifferenceOf(found, after).empty())
        << n;
    image.Store(Spans(disks.contents()));
    EXPECT_EQ(QemuCheck(image.OpenArguments(), /*leaks_allowed=*/true), "")
        << n;
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_TRUE(succeeded);
}

}  // namespace
}  // namespace pellucid
