#include "engine/write_behind.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <latch>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "engine/writable_file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/page_cache_watch.h"

namespace pellucid {
namespace {

constexpr uint64_t kChunk = ChunkWalk::kChunkBytes;
constexpr uint64_t kRequest = 1 << 20;

// A writer whose ranges are kept rather than stored.
class WriteBehindTest : public testing::Test {
 protected:
  void WriteInOrder(uint64_t begin, uint64_t end, uint64_t request = kRequest) {
    for (uint64_t at = begin; at < end; at += request) {
      writer_.NoteWrite(at, request);
    }
  }

  // Where what was started at byte 0 ends, without a gap.
  uint64_t StartedEnd() const {
    uint64_t end = 0;
    for (const auto& [begin, range_end] : started_) {
      if (begin > end) break;
      end = std::max(end, range_end);
    }
    return end;
  }

  std::multimap<uint64_t, uint64_t> started_;
  WriteBehind writer_{[this](uint64_t offset, uint64_t length) {
    started_.emplace(offset, offset + length);
  }};
};

TEST_F(WriteBehindTest, WhatIsWrittenInOrderIsStartedAChunkBehindTheWriter) {
  for (const uint64_t request : {uint64_t{64} << 10, kRequest, 2 * kChunk}) {
    SCOPED_TRACE(request);
    started_.clear();
    WriteInOrder(0, 10 * kChunk, request);
    EXPECT_GE(StartedEnd(), 10 * kChunk - std::max(kChunk, request));
    EXPECT_LE(started_.size(), 9U);
    writer_.NoteWrite(uint64_t{1} << 40, kRequest);  // Elsewhere.
    writer_.NoteWrite(0, kRequest);
  }
}

TEST_F(WriteBehindTest, WhatWasWrittenLateIsStartedWithTheNextChunk) {
  WriteInOrder(0, kChunk - kRequest);
  writer_.NoteWrite(kChunk, kRequest);
  started_.clear();
  writer_.NoteWrite(kChunk - kRequest, kRequest);
  WriteInOrder(kChunk + kRequest, 2 * kChunk + kRequest);
  ASSERT_EQ(started_.size(), 1U);
  EXPECT_EQ(started_.begin()->first, 0U);
  EXPECT_EQ(started_.begin()->second, 2 * kChunk);
}

TEST_F(WriteBehindTest, WhatIsWrittenElsewhereIsNotStartedWithIt) {
  WriteInOrder(0, 2 * kChunk + kRequest);
  started_.clear();
  WriteInOrder(100 * kChunk, 101 * kChunk + kRequest);
  ASSERT_EQ(started_.size(), 1U);
  EXPECT_EQ(started_.begin()->first, 100 * kChunk);
  EXPECT_EQ(started_.begin()->second, 101 * kChunk);
}

TEST_F(WriteBehindTest, ShortWritesAndWritesHereAndThereStartNothing) {
  WriteInOrder(0, 4 * kChunk, 4096);
  std::vector<uint64_t> offsets;
  for (uint64_t at = 0; at < 2000 * kChunk; at += kChunk / 2) {
    offsets.push_back(at);
  }
  std::ranges::shuffle(offsets, std::mt19937_64(1));
  for (const uint64_t at : offsets) writer_.NoteWrite(at, kRequest);
  EXPECT_TRUE(started_.empty());
}

TEST(WriteBehindThreadsTest, NobodyWaitsForHimWhoWaitsForTheDisk) {
  std::latch disk_is_asked(1);
  std::latch disk_has_room(1);
  std::atomic<int> starts = 0;
  WriteBehind writer([&](uint64_t, uint64_t) {
    if (++starts > 1) return;
    disk_is_asked.count_down();
    disk_has_room.wait();
  });
  writer.NoteWrite(0, kChunk);
  std::jthread waiter([&] { writer.NoteWrite(kChunk, kRequest); });
  disk_is_asked.wait();
  for (uint64_t at = kChunk + kRequest; at < 3 * kChunk; at += kRequest) {
    writer.NoteWrite(at, kRequest);
  }
  EXPECT_EQ(starts, 1);
  disk_has_room.count_down();
  waiter.join();
  writer.NoteWrite(3 * kChunk, kRequest);
  EXPECT_GT(starts, 1);
}

TEST(WriteBehindFileTest, TheHostHasMostOfAFileStoredBeforeItsFlush) {
  constexpr uint64_t kSize = 6 * kChunk;
  const ScratchFolder folder;
  ASSERT_FALSE(IsInTmpfs(folder.path())) << "set TMPDIR to a folder on a disk";
  const auto device = WritableFileDevice::Create(folder / "file");
  const Bytes bytes(kRequest, std::byte{1});
  for (uint64_t at = 0; at < kSize; at += kRequest) device->Write(at, bytes);
  const int fd = open((folder / "file").c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_LE(UnstoredBytes(fd, kSize), kChunk);
  close(fd);
}

}  // namespace
}  // namespace pellucid
