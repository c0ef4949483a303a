#include <gtest/gtest.h>

#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/qcow2/image_check.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid {
namespace {

struct Stack {
  std::string name;
  QemuImage image;
  bool has_snapshot = false;
};

void PrintTo(const Stack& stack, std::ostream* out) { *out << stack.name; }

QemuImage Image(uint64_t cluster_size, const std::string& encryption,
                std::vector<std::string> more_options = {}) {
  return {.name = "disk.qcow2",
          .encryption = encryption,
          .cluster_size = cluster_size,
          .virtual_size = 512 << 10,
          .extended_l2 = cluster_size == 16384,
          .more_options = std::move(more_options),
          .backing = ""};
}

std::vector<Stack> Stacks() {
  return {
      {.name = "SmallClusters", .image = Image(512, "none")},
      {.name = "TableGrowth",
       .image = Image(512, "none", {"refcount_bits=64"})},
      {.name = "Snapshot", .image = Image(4096, "none"), .has_snapshot = true},
      {.name = "ExtendedL2",
       .image = Image(16384, "none"),
       .has_snapshot = true},
      {.name = "Luks", .image = Image(4096, "luks")},
      {.name = "LazyRefcounts",
       .image = Image(4096, "none", {"lazy_refcounts=on"})},
  };
}

class Qcow2FaultTest : public ::testing::TestWithParam<Stack> {
 protected:
  void SetUp() override {
    images_.Create(GetParam().image);
    images_.Write("disk.qcow2",
                  ScatteredWrites(images_, 512 << 10, 4096, 15, 6));
    if (GetParam().has_snapshot) TakeSnapshot(images_, "disk.qcow2", "s");
  }

  QemuImages images_;
};

INSTANTIATE_TEST_SUITE_P(All, Qcow2FaultTest, ::testing::ValuesIn(Stacks()),
                         [](const auto& test) { return test.param.name; });

// Gives how often the image threw an error.
int Exercise(ModelledImage& image) {
  int errors = 0;
  const auto attempt = [&](auto&& change) {
    try {
      change();
    } catch (const IoError&) {
      ++errors;
    }
  };
  std::mt19937_64 random(3);
  for (int i = 0; i < 40; ++i) {
    const uint64_t at = random() % (image.sectors() - 40);
    const uint64_t length = 1 + random() % 40;
    switch (random() % 6) {
      case 0:
        attempt([&] { image.WriteZeroes(at, length, ZeroMode::kFreeSpace); });
        break;
      case 1:
        attempt([&] { image.WriteZeroes(at, length, ZeroMode::kKeepSpace); });
        break;
      case 2:
        attempt([&] { image.Flush(); });
        break;
      default:
        attempt([&] { image.Write(at, length); });
    }
  }
  attempt([&] { image.Flush(); });
  return errors;
}

// How many changes of the host's file it takes.
uint64_t ChangesOf(const ImageInMemory& image, const Bytes& before) {
  CrashDisks clean(image.files());
  SyncedModel model(before);
  ModelledImage writer(image, clean, model);
  EXPECT_EQ(Exercise(writer), 0);
  return clean.changes();
}

// The host fails at the n-th change, for every n: once, then for a while.
TEST_P(Qcow2FaultTest, NothingIsLostByAnErrorThatPasses) {
  const ImageInMemory image(images_, "disk.qcow2");
  const Bytes before = image.Content(image.files());
  const uint64_t changes = ChangesOf(image, before);
  ASSERT_GT(changes, 40U);
  for (uint64_t n = 0; n < changes; ++n) {
    for (const uint64_t count : {1U, 9U}) {
      SCOPED_TRACE(testing::Message() << count << " errors from change " << n);
      CrashDisks disks(image.files());
      SyncedModel model(before);
      ModelledImage writer(image, disks, model);
      disks.FailChanges(n, count, n % 2 == 0 ? ENOSPC : EIO);
      const int errors = Exercise(writer);
      if (disks.StopFailing() > 0) {
        EXPECT_GT(errors, 0) << "nobody was told";
      }
      ASSERT_NO_THROW(writer.Flush());
      ASSERT_EQ(model.Check(writer.Content(), disks.position()), "");
      // The image goes on as if nothing had been.
      EXPECT_EQ(Exercise(writer), 0);
      ASSERT_EQ(model.CheckNow(writer.Content()), "");
      writer.Close();
      ASSERT_EQ(model.CheckNow(image.Content(disks.contents())), "");
      BorrowedDisk file(disks.contents()[0]);
      const qcow2::ImageCheck check = qcow2::CheckImage(
          file, "disk.qcow2", qcow2::ReadHeader(file, "disk.qcow2"));
      ASSERT_TRUE(check.is_sound()) << testing::PrintToString(check.texts());
    }
  }
}

// The host fails for a while, or for good, and sooner or later the power goes:
// what a flush confirmed before, meanwhile or afterwards is there.
TEST_P(Qcow2FaultTest, PowerCutsAroundAnErrorLeaveASoundImage) {
  const ImageInMemory image(images_, "disk.qcow2");
  const Bytes before = image.Content(image.files());
  const uint64_t changes = ChangesOf(image, before);
  ASSERT_GT(changes, 40U);
  uint64_t points = 0;
  for (const uint64_t count : {uint64_t{1}, uint64_t{9}, UINT64_MAX / 2}) {
    // Not everywhere: it takes its time.
    for (uint64_t n = count % 3; n < changes; n += 3) {
      SCOPED_TRACE(testing::Message() << count << " errors from change " << n);
      CrashDisks disks(image.files());
      SyncedModel model(before);
      {
        ModelledImage writer(image, disks, model);
        disks.FailChanges(n, count, n % 2 == 0 ? ENOSPC : EIO);
        const int errors = Exercise(writer);
        if (disks.StopFailing() > 0) {
          EXPECT_GT(errors, 0) << "nobody was told";
        }
        if (count <= 9) {
          ASSERT_NO_THROW(writer.Flush());
          EXPECT_EQ(Exercise(writer), 0);
        }
      }
      CrashJudge judge = JudgeOf(image, model, 499);
      std::string wrong;
      points += ForEachCrashPoint(disks, 0.5, n, [&](const CrashPoint& point) {
        if (wrong.empty()) wrong = judge.Judge(point);
      });
      ASSERT_EQ(wrong, "");
    }
  }
  EXPECT_GT(points, 1000U);
}

}  // namespace
}  // namespace pellucid
