#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/qcow2/resize.h"
#include "tests/engine/image_states_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

constexpr const char* kName = "disk.qcow2";

void Grow(const ImageInMemory& image, CrashDisks& disks, uint64_t size,
          bool can_write_data = true) {
  const auto file = disks.Open();
  const bool is_external = image.files().size() > 1;
  const auto data_file = is_external ? disks.Open(1) : nullptr;
  qcow2::GrowDisk({.file = *file,
                   .data_file = data_file.get(),
                   .file_name = kName,
                   .can_write_data = can_write_data,
                   .open =
                       [&](const qcow2::Header& header) {
                         return image.Open(disks, header);
                       }},
                  size);
}

void Shrink(const ImageInMemory& image, CrashDisks& disks, uint64_t size) {
  const bool is_external = image.files().size() > 1;
  const auto data_file = is_external ? disks.Open(1) : nullptr;
  qcow2::ShrinkDisk(*disks.Open(), data_file.get(), kName, size);
}

std::vector<ChangedImage> ResizedImages() {
  std::vector<ChangedImage> images = ChangedImages();
  for (const char* raw : {"off", "on"}) {
    ChangedImage image = images[1];
    image.name = fmt::format("ExternalDataRaw_{}", raw);
    image.image.more_options = {"data_file=external.raw",
                                fmt::format("data_file_raw={}", raw)};
    image.has_snapshots = false;
    images.push_back(image);
  }
  ChangedImage narrow = images[1];
  narrow.name = "Refcounts1";
  narrow.image.more_options = {"refcount_bits=1"};
  narrow.has_snapshots = false;
  images.push_back(narrow);
  return images;
}

class Qcow2ResizeTest : public ::testing::TestWithParam<ChangedImage> {
 protected:
  void SetUp() override {
    ChangedImage image = GetParam();
    for (std::string& option : image.image.more_options) {
      if (option.starts_with("data_file=")) {
        option = fmt::format("data_file={}",
                             (images_.folder() / "external.raw").native());
      }
    }
    Make(image, images_);
  }

  uint64_t size() const { return GetParam().image.virtual_size; }

  QemuImages images_;
};

INSTANTIATE_TEST_SUITE_P(All, Qcow2ResizeTest,
                         ::testing::ValuesIn(ResizedImages()),
                         [](const auto& test) { return test.param.name; });

TEST_P(Qcow2ResizeTest, GrowthIsAtomicAndAddsZeros) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates after = StatesOf(image, Spans(image.files()));
  after[""].resize(size() + (3 << 19));
  ExpectAtomic(
      image, [&](CrashDisks& disks) { Grow(image, disks, after[""].size()); },
      after);
}

TEST_P(Qcow2ResizeTest, GrowthWithinTheLastClusterAddsZeros) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates after = StatesOf(image, Spans(image.files()));
  CrashDisks disks(image.files());
  for (int i = 0; i < 3; ++i) {
    after[""].resize(after[""].size() + 512);
    Grow(image, disks, after[""].size());
    EXPECT_EQ(DifferenceOf(StatesOf(image, Spans(disks.contents())), after),
              "");
  }
  ExpectFlawless(image, disks.contents());
}

TEST_P(Qcow2ResizeTest, ShrinkingIsAtomic) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates after = StatesOf(image, Spans(image.files()));
  after[""].resize(size() / 3 / 512 * 512);
  ExpectAtomic(
      image, [&](CrashDisks& disks) { Shrink(image, disks, after[""].size()); },
      after);
}

TEST_P(Qcow2ResizeTest, WhatWasCutOffDoesNotComeBack) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates states = StatesOf(image, Spans(image.files()));
  CrashDisks disks(image.files());
  for (const uint64_t cut :
       {size() - 1024, size() / 2 / 512 * 512 + 512, uint64_t{512}}) {
    Shrink(image, disks, cut);
    states[""].resize(cut);
    EXPECT_EQ(DifferenceOf(StatesOf(image, Spans(disks.contents())), states),
              "");
    ExpectFlawless(image, disks.contents());
    Grow(image, disks, size());
    states[""].resize(size());
    EXPECT_EQ(DifferenceOf(StatesOf(image, Spans(disks.contents())), states),
              "");
    ExpectFlawless(image, disks.contents());
  }
  // QEMU sees the same.
  image.Store(Spans(disks.contents()));
  EXPECT_EQ(FirstDifference(images_.Content(kName), states[""]), "");
}

// Clusters that are mapped behind the end, as the state of a machine is, are
// not to be seen when the end moves behind them.
TEST_P(Qcow2ResizeTest, GrowthHidesWhatWasBehindTheEnd) {
  const ImageInMemory image = InMemory(GetParam(), images_);
  ImageStates states = StatesOf(image, Spans(image.files()));
  std::vector<Bytes> files = image.files();
  const uint64_t cut = size() / 3 / 512 * 512;
  StoreNumber(files[0], 24, 8, cut);
  CrashDisks disks(files);
  Grow(image, disks, size());
  std::fill(states[""].begin() + static_cast<ptrdiff_t>(cut), states[""].end(),
            std::byte{0});
  EXPECT_EQ(DifferenceOf(StatesOf(image, Spans(disks.contents())), states), "");
  ExpectFlawless(image, disks.contents());
  if (files.size() > 1 && GetParam().name == "ExternalDataRaw_on") {
    Bytes raw = disks.contents()[1];
    raw.resize(size());
    EXPECT_EQ(FirstDifference(raw, states[""]), "");
  }
}

class ResizeLimitsTest : public ::testing::Test {
 protected:
  void MakeImage(uint64_t cluster_size, bool version2 = false) {
    images_.Create({.name = kName,
                    .encryption = "none",
                    .cluster_size = cluster_size,
                    .virtual_size = 1 << 20,
                    .version2 = version2,
                    .more_options = {},
                    .backing = ""});
    images_.Write(kName, {"write -q -P 1 0 64k"});
  }

  QemuImages images_;
};

TEST_F(ResizeLimitsTest, WhatNoL1TableReachesIsRefused) {
  MakeImage(512);
  const ImageInMemory image(images_, kName);
  CrashDisks disks(image.files());
  // 4 Mi entries of 64 clusters of 512 bytes.
  constexpr uint64_t kMost = uint64_t{128} << 30;
  EXPECT_THAT(ThrownText<UsageError>([&] { Grow(image, disks, kMost + 512); }),
              HasSubstr("they reach up to 137438953472 bytes"));
  EXPECT_EQ(disks.changes(), 0U);
  Grow(image, disks, kMost);
  EXPECT_EQ(LoadNumber(disks.contents()[0], 24, 8), kMost);
  image.Store(Spans(disks.contents()));
  EXPECT_THAT(RunTool({"qemu-img", "check", images_.path(kName)}),
              HasSubstr("No errors"));
}

// A snapshot without a size of its own would change with the image.
TEST_F(ResizeLimitsTest, SnapshotsWithoutTheirSizeAreRefused) {
  MakeImage(4096, /*version2=*/true);
  TakeSnapshot(images_, kName, "s");
  const ImageInMemory image(images_, kName);
  std::vector<Bytes> files = image.files();
  // No extra data: id and name move to where it was.
  const uint64_t entry = LoadNumber(files[0], 64, 8);
  const uint64_t extra = LoadNumber(files[0], entry + 36, 4);
  StoreNumber(files[0], entry + 36, 4, 0);
  const auto at = files[0].begin() + static_cast<ptrdiff_t>(entry + 40);
  const uint64_t names = LoadNumber(files[0], entry + 12, 2) +
                         LoadNumber(files[0], entry + 14, 2);
  std::copy_n(at + static_cast<ptrdiff_t>(extra), names, at);
  CrashDisks disks(files);
  for (const uint64_t size : {uint64_t{1} << 21, uint64_t{1} << 19}) {
    EXPECT_THAT(ThrownText<Unsupported>([&] {
                  if (size > 1 << 20) {
                    Grow(image, disks, size);
                  } else {
                    Shrink(image, disks, size);
                  }
                }),
                HasSubstr("do not tell their own size"));
  }
  EXPECT_EQ(disks.changes(), 0U);
}

TEST_F(ResizeLimitsTest, BitmapsAreDropped) {
  MakeImage(4096);
  RunTool({"qemu-img", "bitmap", "--add", images_.path(kName), "b"});
  for (const bool grow : {true, false}) {
    const ImageInMemory image(images_, kName);
    CrashDisks disks(image.files());
    if (grow) {
      Grow(image, disks, 1 << 21);
    } else {
      Shrink(image, disks, 1 << 19);
    }
    EXPECT_EQ(LoadNumber(disks.contents()[0], 88, 8), 0U);
    const Bytes before = image.files()[0];
    ExpectFlawless(image, disks.contents());
    WriteHostFile(images_.path(kName), before);
  }
}

// Space comes back to the host, in holes if not at the end.
TEST_F(ResizeLimitsTest, ShrinkingGivesSpaceBack) {
  MakeImage(4096);
  images_.Write(kName, {"write -q -P 3 64k 900k"});
  const ImageInMemory image(images_, kName);
  CrashDisks disks(image.files());
  Shrink(image, disks, 64 << 10);
  const Bytes& file = disks.contents()[0];
  // But for what the header and its tables have of that number.
  EXPECT_LT(std::ranges::count(file, std::byte{3}), 100);
  EXPECT_EQ(std::ranges::count(file, std::byte{1}) / 4096, 16);
  EXPECT_LE(file.size(), image.files()[0].size() + 4 * 4096);
  ExpectFlawless(image, disks.contents());
}

}  // namespace
}  // namespace pellucid
