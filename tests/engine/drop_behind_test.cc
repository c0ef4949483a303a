#include "engine/drop_behind.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "engine/file_device.h"
#include "engine/writable_file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/page_cache_watch.h"

namespace pellucid {
namespace {

constexpr uint64_t kChunk = DropBehind::kChunkBytes;
constexpr uint64_t kFileBytes = 20 * kChunk;
constexpr size_t kRequest = 256 << 10;
// What nobody has looked at before the reader came, what is near him at the
// end, and some more for a host that is busy.
constexpr uint64_t kLeft = (1 + DropBehind::kLookAhead + 2 + 3) * kChunk;

// A file on a disk, of which the page cache holds nothing at first.
class DropBehindTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(IsInTmpfs(folder_.path()))
        << "set TMPDIR to a folder on a disk";
    WriteHostFile(path_, Noise(kFileBytes, 1));
    fd_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd_, 0);
    ASSERT_EQ(fsync(fd_), 0);
    ASSERT_EQ(posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED), 0);
    ASSERT_LT(CachedBytes(), kChunk);
  }
  void TearDown() override { close(fd_); }

  uint64_t CachedBytes() const {
    return pellucid::CachedBytes(fd_, kFileBytes);
  }

  static void ReadInOrder(BlockDevice& device, size_t request = kRequest) {
    Bytes buffer(request);
    for (uint64_t at = 0; at < kFileBytes; at += request) {
      device.Read(at, buffer);
    }
  }

  std::unique_ptr<FileDevice> Open() const {
    return FileDevice::Open(path_, FileDevice::Sharing::kExclusive);
  }

  const ScratchFolder folder_;
  const std::filesystem::path path_ = folder_ / "file";
  int fd_ = -1;
};

TEST_F(DropBehindTest, ColdFileThatIsReadInOrderIsDroppedBehindTheReader) {
  ReadInOrder(*Open());
  EXPECT_LE(CachedBytes(), kLeft);
}

TEST_F(DropBehindTest, SoItIsWhereTheFileCanBeWritten) {
  ReadInOrder(*WritableFileDevice::Open(path_));
  EXPECT_LE(CachedBytes(), kLeft);
}

TEST_F(DropBehindTest, ThreadsThatShareTheReadingDropTheFileAsWell) {
  const auto read_together = [&] {
    const auto device = Open();
    std::atomic<uint64_t> next = 0;
    std::vector<std::jthread> readers;
    for (int i = 0; i < 4; ++i) {
      readers.emplace_back([&] {
        Bytes buffer(kRequest);
        for (uint64_t at; (at = next.fetch_add(kRequest)) < kFileBytes;) {
          device->Read(at, buffer);
        }
      });
    }
    readers.clear();
    return CachedBytes();
  };
  // A thread that a busy host lets wait for long is a reader out of order.
  uint64_t cached = read_together();
  for (int retries = 10; retries > 0 && cached > kLeft; --retries) {
    ASSERT_EQ(posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED), 0);
    cached = read_together();
  }
  EXPECT_LE(cached, kLeft);
}

TEST_F(DropBehindTest, WhatWasInThePageCacheBeforeStays) {
  Bytes all(kFileBytes);
  ASSERT_EQ(pread(fd_, all.data(), all.size(), 0),
            static_cast<ssize_t>(all.size()));
  ReadInOrder(*Open());
  EXPECT_GE(CachedBytes(), kFileBytes - kChunk);
}

TEST_F(DropBehindTest, FileThatIsReadHereAndThereStays) {
  const auto device = Open();
  std::vector<uint64_t> offsets;
  for (uint64_t at = 0; at < kFileBytes; at += kRequest) offsets.push_back(at);
  std::ranges::shuffle(offsets, std::mt19937_64(1));
  Bytes buffer(kRequest);
  for (const uint64_t at : offsets) device->Read(at, buffer);
  EXPECT_GE(CachedBytes(), kFileBytes - kChunk);
}

TEST_F(DropBehindTest, ShortReadsDropNothing) {
  ReadInOrder(*Open(), 4096);
  EXPECT_GE(CachedBytes(), kFileBytes - kChunk);
}

}  // namespace
}  // namespace pellucid
