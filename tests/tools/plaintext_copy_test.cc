#include "tools/plaintext_copy.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/page_cache_watch.h"
#include "tests/tools/interval_device.h"
#include "tools/export_target.h"

namespace pellucid::cli {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

void IgnoreProgress(Progress) {}

class PlaintextCopyTest : public testing::Test {
 protected:
  ExportTargetOptions Options(bool sparse = true) {
    ExportTargetOptions options;
    options.path = (folder_ / "copy").string();
    options.overwrite = true;
    options.sparse = sparse;
    return options;
  }

  // Copies to a file, and returns what is in it.
  Bytes Copy(BlockDevice& device, ByteRange range, bool sparse,
             unsigned threads, OrderedHashes* hashes = nullptr) {
    ExportTarget target(Options(sparse), range.length, {});
    PlaintextCopy(device, range, target, 0,
                  {.hashes = hashes, .manifest = nullptr})
        .Run(threads, IgnoreProgress);
    target.Finish();
    return ReadHostFile(folder_ / "copy");
  }

  uint64_t AllocatedBytes() {
    struct stat status;
    EXPECT_EQ(stat((folder_ / "copy").c_str(), &status), 0);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  }

  ScratchFolder folder_;
};

TEST_F(PlaintextCopyTest, ManyThreadsCopyRandomExtentsExactly) {
  constexpr uint64_t kSize = 5 * kMiB + 12345;
  std::mt19937_64 random(1);
  for (int round = 0; round < 8; ++round) {
    IntervalDevice device(kSize);
    uint64_t at = random() % 100000;
    while (at < kSize) {
      const uint64_t end = std::min(kSize, at + 1 + random() % 700000);
      device.AddData(at, end);
      at = end + 1 + random() % (round % 2 == 0 ? 5000 : 3000000);
    }
    const uint64_t offset = round < 4 ? 0 : random() % kSize;
    const ByteRange range = {
        .offset = offset,
        .length = round < 4 ? kSize : random() % (kSize - offset)};
    const Bytes expected =
        device.Content(range.offset, static_cast<size_t>(range.length));
    for (const bool sparse : {true, false}) {
      OrderedHashes hashes({"md5", "sha256"});
      EXPECT_TRUE(Copy(device, range, sparse, 5) == expected);
      EXPECT_TRUE(Copy(device, range, sparse, 5, &hashes) == expected);
      EXPECT_EQ(FormatHex(hashes.Finish()[1].bytes), Sha256(expected));
    }
  }
}

TEST_F(PlaintextCopyTest, HolesAreNeitherReadNorStored) {
  IntervalDevice device(64 * kMiB);
  device.AddData(10 * kMiB, 10 * kMiB + 65536);
  Copy(device, {.offset = 0, .length = 64 * kMiB}, true, 3);
  EXPECT_EQ(device.bytes_read(), 65536u);
  EXPECT_LE(AllocatedBytes(), kMiB);
  Copy(device, {.offset = 0, .length = 64 * kMiB}, false, 3);
  EXPECT_EQ(device.bytes_read(), 2 * 65536u);
  EXPECT_GE(AllocatedBytes(), 64 * kMiB);
}

// A device that stores zeros everywhere.
class StoredZeros : public BlockDevice {
 public:
  uint64_t size() const override { return 16 * kMiB; }
  void Read(uint64_t /*offset*/, std::span<std::byte> out) override {
    std::ranges::fill(out, std::byte{0});
  }
  Extent ExtentAt(uint64_t /*offset*/, uint64_t max_length) override {
    return {.length = max_length, .is_hole = false};
  }
};

TEST_F(PlaintextCopyTest, StoredZerosBecomeHolesToo) {
  StoredZeros device;
  const Bytes copy = Copy(device, {.offset = 0, .length = 16 * kMiB}, true, 2);
  EXPECT_TRUE(copy == Bytes(16 * kMiB));
  EXPECT_LE(AllocatedBytes(), 65536u);
}

TEST_F(PlaintextCopyTest, AnEmptyTebibyteTakesNoTime) {
  constexpr uint64_t kSize = uint64_t{8} << 40;
  IntervalDevice device(kSize);
  ExportTarget target(Options(), kSize, {});
  PlaintextCopy(device, {.offset = 0, .length = kSize}, target, 0)
      .Run(2, IgnoreProgress);
  target.Finish();
  struct stat status;
  ASSERT_EQ(stat((folder_ / "copy").c_str(), &status), 0);
  EXPECT_EQ(static_cast<uint64_t>(status.st_size), kSize);
  EXPECT_LE(device.lookups(), 2u);
}

TEST_F(PlaintextCopyTest, TheFirstErrorEndsManyThreads) {
  for (const bool hashed : {false, true}) {
    IntervalDevice device(64 * kMiB);
    device.AddData(0, 64 * kMiB);
    device.FailReadsFrom(3 * kMiB + 5);
    ExportTarget target(Options(), 64 * kMiB, {});
    OrderedHashes hashes({"md5", "sha256"});
    PlaintextCopy copy(
        device, {.offset = 0, .length = 64 * kMiB}, target, 0,
        {.hashes = hashed ? &hashes : nullptr, .manifest = nullptr});
    EXPECT_THROW(copy.Run(4, IgnoreProgress), IoError);
    EXPECT_LE(device.bytes_read(), 20 * kMiB);
  }
}

// ext4 begins to store a file that was ever cut to nothing when it is closed,
// and a copy would take as long as the disk.
TEST_F(PlaintextCopyTest, ANewFileIsNotStoredBeforeTheHostSeesFit) {
  constexpr uint64_t kSize = 8 * kMiB;
  IntervalDevice device(kSize);
  device.AddData(0, kSize);
  ASSERT_FALSE(IsInTmpfs(folder_.path())) << "set TMPDIR to a folder on a disk";
  const auto unstored_bytes = [&] {
    Copy(device, {.offset = 0, .length = kSize}, true, 2);
    const int fd = open((folder_ / "copy").c_str(), O_RDONLY | O_CLOEXEC);
    const uint64_t bytes = UnstoredBytes(fd, kSize);
    close(fd);
    std::filesystem::remove(folder_ / "copy");
    return bytes;
  };
  // A busy host may see fit at once.
  uint64_t unstored = unstored_bytes();
  for (int retries = 20; retries > 0 && unstored < kSize; --retries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    unstored = unstored_bytes();
  }
  EXPECT_EQ(unstored, kSize);
}

// Gives the watcher time to be called.
class SlowDevice : public StoredZeros {
 public:
  void Read(uint64_t offset, std::span<std::byte> out) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    StoredZeros::Read(offset, out);
  }
};

TEST_F(PlaintextCopyTest, WhatTheWatcherThrowsEndsManyThreads) {
  SlowDevice device;
  ExportTarget target(Options(), device.size(), {});
  PlaintextCopy copy(device, {.offset = 0, .length = device.size()}, target, 0);
  EXPECT_THROW(
      copy.Run(2, [](Progress) { throw std::runtime_error("enough"); }),
      std::runtime_error);
}

TEST_F(PlaintextCopyTest, TheWatcherSeesProgressGrow) {
  SlowDevice device;
  ExportTarget target(Options(), device.size(), {});
  PlaintextCopy copy(device, {.offset = 0, .length = device.size()}, target, 0);
  std::multiset<uint64_t> positions;
  copy.Run(2, [&](Progress progress) {
    EXPECT_LE(progress.copied, device.size());
    if (!positions.empty()) {
      EXPECT_GE(progress.position, *positions.rbegin());
    }
    positions.insert(progress.position);
  });
  EXPECT_GE(positions.size(), 2u);
}

}  // namespace
}  // namespace pellucid::cli
