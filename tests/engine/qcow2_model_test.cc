#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/qcow2/image_check.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid {
namespace {

// With 42 variants and 6 widths of refcounts, over a million.
constexpr int kOperations = 22000;

// A qcow2 image and a vector that has to be the same.
class ModelTest {
 public:
  ModelTest(QemuImages& images, bool has_backing, uint64_t seed)
      : images_(images),
        image_(images, "top.qcow2", has_backing ? "base.qcow2" : ""),
        disks_(image_.files()),
        model_(image_.Content(image_.files())),
        random_(seed) {
    disks_.StopRecording();
    device_ = image_.Open(disks_);
  }

  void Run(int operations) {
    for (int i = 0; i < operations && !testing::Test::HasFatalFailure(); ++i) {
      SCOPED_TRACE(testing::Message() << "operation " << i);
      Operate();
    }
  }

  WritableDevice& device() { return *device_; }
  Bytes& model() { return model_; }
  const CrashDisks& disks() const { return disks_; }
  const ImageInMemory& image() const { return image_; }

  void Reopen() {
    device_->Flush();
    device_.reset();
    CheckMetadata();
    device_ = image_.Open(disks_);
  }

  // Ours and QEMU's view of what is there in the end.
  void Finish() {
    ASSERT_EQ(FirstDifference(ReadAll(*device_), model_), "");
    device_->Flush();
    device_.reset();
    CheckMetadata();
    image_.Store(Spans(disks_.contents()));
    EXPECT_EQ(QemuCheck(image_.OpenArguments(), /*leaks_allowed=*/false), "");
    WriteHostFile(images_.folder() / "model.raw", model_);
    std::vector<std::string> command = {"qemu-img", "compare"};
    const std::vector<std::string> open = images_.OpenArguments("top.qcow2");
    command.insert(command.end(), open.begin(), open.end());
    command.push_back("driver=raw,file.filename=" +
                      (images_.folder() / "model.raw").string());
    const ProgramResult compared = RunProgram(command);
    EXPECT_EQ(compared.exit_code, 0) << compared.out << compared.err;
  }

 private:
  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
  };

  // Mostly small, of any alignment, sometimes many clusters.
  Range AnyRange() {
    const uint64_t offset = random_() % model_.size();
    uint64_t length = 1 + random_() % 3000;
    if (random_() % 4 == 0) length = 4096;
    if (random_() % 64 == 0) length = 1 + random_() % 200000;
    Range range = {.offset = offset,
                   .length = std::min(length, model_.size() - offset)};
    if (random_() % 3 == 0) range.offset -= range.offset % 4096;
    return range;
  }

  void Operate() {
    const uint64_t kind = random_() % 1000;
    const Range range = AnyRange();
    const auto begin = model_.begin() + static_cast<ptrdiff_t>(range.offset);
    const auto end = begin + static_cast<ptrdiff_t>(range.length);
    if (kind < 450) {
      // Cheap bytes that differ from call to call and from place to place.
      const uint64_t salt = random_();
      for (uint64_t i = 0; i < range.length; ++i) {
        begin[static_cast<ptrdiff_t>(i)] =
            static_cast<std::byte>((salt + i * 41) >> 3);
      }
      device_->Write(range.offset, std::span(begin, end));
    } else if (kind < 800) {
      buffer_.resize(range.length);
      device_->Read(range.offset, buffer_);
      ASSERT_TRUE(std::equal(begin, end, buffer_.begin()))
          << range.length << " bytes at " << range.offset;
    } else if (kind < 940) {
      device_->WriteZeroes(
          range.offset, range.length,
          kind % 2 == 0 ? ZeroMode::kFreeSpace : ZeroMode::kKeepSpace);
      std::fill(begin, end, std::byte{0});
    } else if (kind < 970) {
      const Extent extent = device_->ExtentAt(range.offset, range.length);
      ASSERT_GT(extent.length, 0U);
      ASSERT_LE(extent.length, range.length);
      if (extent.is_hole) {
        ASSERT_TRUE(std::all_of(begin,
                                begin + static_cast<ptrdiff_t>(extent.length),
                                [](std::byte b) { return b == std::byte{0}; }))
            << "a hole with data in it at " << range.offset;
      }
    } else if (kind < 998) {
      device_->Flush();
    } else {
      Reopen();
    }
  }

  // Sound, and nothing leaked once everything is flushed.
  void CheckMetadata() {
    BorrowedDisk file(disks_.contents()[0]);
    const qcow2::ImageCheck check = qcow2::CheckImage(
        file, "top.qcow2", qcow2::ReadHeader(file, "top.qcow2"));
    ASSERT_TRUE(check.is_sound()) << testing::PrintToString(check.texts());
    ASSERT_EQ(check.leaks + check.leaks_behind_end, 0U);
  }

  QemuImages& images_;
  const ImageInMemory image_;
  CrashDisks disks_;
  Bytes model_;
  std::mt19937_64 random_;
  std::unique_ptr<WritableDevice> device_;
  Bytes buffer_;
};

std::vector<ImageVariant> ModelVariants() {
  std::vector<ImageVariant> variants = AllVariants();
  std::erase_if(variants, [](const ImageVariant& variant) {
    return variant.cluster_size > 65536;
  });
  return variants;
}

class Qcow2ModelTest : public ::testing::TestWithParam<ImageVariant> {
 protected:
  QemuImages images_;
};

INSTANTIATE_TEST_SUITE_P(All, Qcow2ModelTest,
                         ::testing::ValuesIn(ModelVariants()),
                         [](const auto& test) { return TestName(test.param); });

TEST_P(Qcow2ModelTest, RandomOperationsWithASnapshot) {
  MakeVariant(GetParam(), images_);
  TakeSnapshot(images_, "top.qcow2", "before");
  ModelTest test(images_, GetParam().has_backing, 1);
  const Bytes snapshot = test.image().Content(test.image().files(), "before");
  ASSERT_NO_FATAL_FAILURE(test.Run(kOperations));
  test.Finish();
  EXPECT_EQ(
      FirstDifference(test.image().Content(test.disks().contents(), "before"),
                      snapshot),
      "");
}

class Qcow2RefcountModelTest : public ::testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Bits, Qcow2RefcountModelTest,
                         ::testing::Values(1, 2, 4, 8, 32, 64));

TEST_P(Qcow2RefcountModelTest, RandomOperations) {
  QemuImages images;
  images.Create({.name = "top.qcow2",
                 .encryption = "none",
                 .cluster_size = 512,
                 .virtual_size = 3 << 20,
                 .more_options = {fmt::format("refcount_bits={}", GetParam())},
                 .backing = ""});
  images.Write("top.qcow2", ScatteredWrites(images, 3 << 20, 512, 20, 1));
  if (GetParam() > 1) TakeSnapshot(images, "top.qcow2", "before");
  ModelTest test(images, false, static_cast<uint64_t>(GetParam()));
  ASSERT_NO_FATAL_FAILURE(test.Run(kOperations));
  test.Finish();
}

TEST(Qcow2ExternalDataModelTest, RandomOperations) {
  QemuImages images;
  images.Create(
      {.name = "top.qcow2",
       .encryption = "none",
       .cluster_size = 4096,
       .virtual_size = 3 << 20,
       .more_options = {"data_file=" + (images.folder() / "top.data").string()},
       .backing = ""});
  ModelTest test(images, false, 5);
  ASSERT_NO_FATAL_FAILURE(test.Run(kOperations));
  test.Finish();
}

class Qcow2ModelTestThreads : public Qcow2ModelTest {};

INSTANTIATE_TEST_SUITE_P(
    Some, Qcow2ModelTestThreads,
    ::testing::Values(ImageVariant{512, "v3", "none", false},
                      ImageVariant{4096, "v2", "aes", true},
                      ImageVariant{65536, "extended", "luks", true},
                      ImageVariant{65536, "v3", "luks", false}),
    [](const auto& test) { return TestName(test.param); });

// Four threads whose bytes lie between each other's, in stripes that begin and
// end within sectors; each checks its own. A fifth flushes.
TEST_P(Qcow2ModelTestThreads, NeighboursDoNotDisturbEachOther) {
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kStripe = 1777;
  MakeVariant(GetParam(), images_);
  TakeSnapshot(images_, "top.qcow2", "before");
  ModelTest test(images_, GetParam().has_backing, 1);
  const uint64_t stripes = test.model().size() / kStripe;
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  const auto work = [&](uint64_t number) {
    std::mt19937_64 random(number);
    Bytes buffer;
    for (int i = 0; i < 4000 && wrong == 0; ++i) {
      const uint64_t stripe =
          random() % (stripes / kThreads) * kThreads + number;
      const uint64_t from = random() % kStripe;
      const uint64_t offset = stripe * kStripe + from;
      const uint64_t length = 1 + random() % (kStripe - from);
      const std::span own = std::span(test.model()).subspan(offset, length);
      switch (random() % 5) {
        case 0:
          std::ranges::fill(own, std::byte{0});
          test.device().WriteZeroes(
              offset, length,
              i % 2 == 0 ? ZeroMode::kFreeSpace : ZeroMode::kKeepSpace);
          break;
        case 1:
        case 2:
          buffer.resize(length);
          test.device().Read(offset, buffer);
          if (!std::ranges::equal(buffer, own)) ++wrong;
          break;
        default:
          std::ranges::fill(own, static_cast<std::byte>(random()));
          test.device().Write(offset, own);
      }
    }
  };
  {
    std::jthread flusher([&] {
      while (!stop) {
        test.device().Flush();
        std::this_thread::yield();
      }
    });
    {
      std::vector<std::jthread> threads;
      for (uint64_t i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
    }
    stop = true;
  }
  EXPECT_EQ(wrong, 0);
  test.Finish();
}

}  // namespace
}  // namespace pellucid
