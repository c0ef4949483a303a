// Many threads on one image, whose requests overlap: whatever is read was
// written to that place at some time, and nothing of another place or of
// another guest's past ever shows.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/cluster_cache.h"
#include "engine/qcow2/image_check.h"
#include "tests/engine/growing_memory_device.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid {
namespace {

// The high bits of a byte say where it belongs, the low ones who wrote it: 1
// for what was there at first, more for threads. Zero belongs everywhere.
constexpr uint8_t kFirst = 1;
constexpr uint8_t kPlaceBits = 0xf0;

std::byte ByteOf(uint64_t offset, uint8_t writer) {
  const uint64_t hash = offset * 0x9e37'79b9'7f4a'7c15;
  return static_cast<std::byte>((hash >> 56 & kPlaceBits) | writer);
}

void Fill(std::span<std::byte> bytes, uint64_t offset, uint8_t writer) {
  for (uint64_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = ByteOf(offset + i, writer);
  }
}

// What is wrong with bytes that were read at `offset`; empty if nothing is.
std::string Foreign(std::span<const std::byte> bytes, uint64_t offset,
                    uint8_t writers) {
  for (uint64_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == std::byte{0}) continue;
    const auto writer =
        static_cast<uint8_t>(std::to_integer<uint8_t>(bytes[i]) & ~kPlaceBits);
    if (writer >= kFirst && writer <= writers &&
        bytes[i] == ByteOf(offset + i, writer)) {
      continue;
    }
    return fmt::format("byte {} of the disk is {:#x}, in a read of {} at {}",
                       offset + i, std::to_integer<int>(bytes[i]), bytes.size(),
                       offset);
  }
  return "";
}

struct SharedImage {
  std::string name;
  uint64_t cluster_size = 4096;
  std::string encryption = "none";
  bool version2 = false;
  bool extended_l2 = false;
  bool has_snapshot = false;
  bool has_cache = false;
};

void PrintTo(const SharedImage& image, std::ostream* out) {
  *out << image.name;
}

std::vector<SharedImage> SharedImages() {
  return {
      {.name = "SmallClusters", .cluster_size = 512, .has_snapshot = true},
      {.name = "Version2", .version2 = true, .has_snapshot = true},
      {.name = "ExtendedL2",
       .cluster_size = 16384,
       .extended_l2 = true,
       .has_snapshot = true},
      {.name = "Luks", .encryption = "luks", .has_snapshot = true},
      {.name = "LegacyAesInLargeClusters",
       .cluster_size = 65536,
       .encryption = "aes"},
      {.name = "LuksBelowTheCache", .encryption = "luks", .has_cache = true},
  };
}

class Qcow2ThreadsTest : public ::testing::TestWithParam<SharedImage> {
 protected:
  // Writers of ranges that overlap in the front half of the disk; owners of
  // stripes in the other half, where each knows what it has to find; readers
  // of everything.
  static constexpr uint8_t kWriters = 3;
  static constexpr uint8_t kOwners = 2;
  static constexpr uint64_t kReaders = 3;
  static constexpr uint8_t kLastWriter = kFirst + kWriters + kOwners;
  static constexpr uint64_t kSize = (768 << 10) + 512;
  static constexpr uint64_t kShared = kSize / 2;
  static constexpr uint64_t kStripe = 1777;

  // Of each thread that writes.
  static int operations() { return GetParam().has_cache ? 400 : 1200; }

  void SetUp() override {
    const SharedImage& wanted = GetParam();
    images_.Create({.name = "disk.qcow2",
                    .encryption = wanted.encryption,
                    .cluster_size = wanted.cluster_size,
                    .virtual_size = kSize,
                    .version2 = wanted.version2,
                    .extended_l2 = wanted.extended_l2,
                    .more_options = {},
                    .backing = ""});
    {
      const ImageInMemory empty(images_, "disk.qcow2");
      CrashDisks disks(empty.files());
      const auto device = empty.Open(disks);
      device->Write(0, FirstContent());
      device->Flush();
      empty.Store(Spans(disks.contents()));
    }
    if (wanted.has_snapshot) TakeSnapshot(images_, "disk.qcow2", "before");
    image_.emplace(images_, "disk.qcow2");
    // In steps, between which others come to their turn.
    auto file = std::make_unique<GrowingMemoryDevice>(image_->files()[0], 512);
    file_ = file.get();
    device_ = image_->Open(std::move(file));
    if (wanted.has_cache) {
      ClusterCache::Options options;
      options.capacity_bytes = 128 << 10;
      options.line_bytes = 16 << 10;
      options.max_age = std::chrono::milliseconds(3);
      device_ = std::make_unique<ClusterCache>(std::move(device_), options);
    }
  }

  static Bytes FirstContent() {
    Bytes content(kSize);
    Fill(content, 0, kFirst);
    return content;
  }

  void Report(const std::string& wrong) {
    if (wrong.empty()) return;
    const std::lock_guard lock(mutex_);
    if (wrong_.empty()) wrong_ = wrong;
    failed_ = true;
  }

  std::jthread Start(std::function<void()> work) {
    return std::jthread([this, work = std::move(work)] {
      try {
        work();
      } catch (const std::exception& error) {
        Report(error.what());
      }
    });
  }

  void Change(uint64_t offset, std::span<std::byte> bytes, uint8_t writer,
              uint64_t kind) {
    if (kind % 4 == 0) {
      std::ranges::fill(bytes, std::byte{0});
      device_->WriteZeroes(
          offset, bytes.size(),
          kind % 8 == 0 ? ZeroMode::kFreeSpace : ZeroMode::kKeepSpace);
    } else {
      Fill(bytes, offset, writer);
      device_->Write(offset, bytes);
    }
  }

  void WriteAnywhere(uint8_t writer) {
    std::mt19937_64 random(writer);
    Bytes buffer;
    for (int i = 0; i < operations() && !failed_; ++i) {
      uint64_t offset = random() % kShared;
      uint64_t length = 1 + random() % (random() % 8 == 0 ? 60000 : 5000);
      // Whole clusters are given back, and soon belong to another place.
      if (random() % 3 == 0) {
        offset -= offset % GetParam().cluster_size;
        length = std::max(length, GetParam().cluster_size);
      }
      buffer.resize(std::min(length, kShared - offset));
      Change(offset, buffer, writer, random());
      if (random() % 16 == 0) device_->Flush();
    }
  }

  void WriteOwnStripes(uint8_t writer, uint64_t number) {
    std::mt19937_64 random(writer);
    Bytes model = FirstContent();
    const uint64_t stripes = (kSize - kShared) / kStripe / kOwners;
    Bytes buffer;
    for (int i = 0; i < operations() && !failed_; ++i) {
      const uint64_t begin =
          kShared + (random() % stripes * kOwners + number) * kStripe;
      const uint64_t from = random() % kStripe;
      const uint64_t length = 1 + random() % (kStripe - from);
      const std::span own = std::span(model).subspan(begin + from, length);
      if (random() % 3 == 0) {
        buffer.resize(length);
        device_->Read(begin + from, buffer);
        if (!std::ranges::equal(buffer, own)) {
          Report(fmt::format("{} bytes at {} are not what their owner wrote",
                             length, begin + from));
        }
      } else {
        Change(begin + from, own, writer, random());
      }
    }
  }

  void ReadAnywhere(uint64_t seed) {
    std::mt19937_64 random(seed);
    Bytes buffer;
    while (!stop_ && !failed_) {
      const uint64_t offset = random() % kSize;
      const uint64_t most = random() % 32 == 0 ? kSize : 9000;
      buffer.resize(1 + random() % std::min(most, kSize - offset));
      device_->Read(offset, buffer);
      Report(Foreign(buffer, offset, kLastWriter));
    }
  }

  QemuImages images_;
  std::optional<ImageInMemory> image_;
  std::unique_ptr<WritableDevice> device_;
  GrowingMemoryDevice* file_ = nullptr;  // Of device_.
  std::atomic<bool> stop_ = false;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  std::string wrong_;  // Guarded by it.
};

INSTANTIATE_TEST_SUITE_P(All, Qcow2ThreadsTest,
                         ::testing::ValuesIn(SharedImages()),
                         [](const auto& test) { return test.param.name; });

TEST_P(Qcow2ThreadsTest, ReadersFindOnlyWhatWasWrittenThere) {
  {
    std::vector<std::jthread> readers;
    for (uint64_t i = 0; i < kReaders; ++i) {
      readers.push_back(Start([this, i] { ReadAnywhere(100 + i); }));
    }
    std::vector<std::jthread> writers;
    uint8_t writer = kFirst;
    for (uint8_t i = 0; i < kWriters; ++i) {
      writers.push_back(
          Start([this, number = ++writer] { WriteAnywhere(number); }));
    }
    for (uint8_t i = 0; i < kOwners; ++i) {
      writers.push_back(
          Start([this, number = ++writer, i] { WriteOwnStripes(number, i); }));
    }
    writers.clear();  // Joins them.
    stop_ = true;
  }
  ASSERT_EQ(wrong_, "");
  const Bytes content = ReadAll(*device_);
  ASSERT_EQ(Foreign(content, 0, kLastWriter), "");
  device_->Flush();
  const std::vector<Bytes> files = {file_->bytes()};
  EXPECT_EQ(FirstDifference(image_->Content(files), content), "");
  if (GetParam().has_snapshot) {
    EXPECT_EQ(FirstDifference(image_->Content(files, "before"), FirstContent()),
              "");
  }
  BorrowedDisk file(files[0]);
  const qcow2::ImageCheck check = qcow2::CheckImage(
      file, "disk.qcow2", qcow2::ReadHeader(file, "disk.qcow2"));
  EXPECT_TRUE(check.is_sound()) << testing::PrintToString(check.texts());
  EXPECT_EQ(check.leaks + check.leaks_behind_end, 0U);
}

}  // namespace
}  // namespace pellucid
