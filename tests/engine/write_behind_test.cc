#include "engine/write_behind.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <future>
#include <latch>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "engine/errors.h"
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
  void WriteInOrder(uint64_t begin, uint64_t end) {
    for (uint64_t at = begin; at < end; at += kRequest) {
      writer_.NoteWrite(at, kRequest);
    }
  }

  // Waits until all in [begin, end) was started since the last time.
  void AwaitStarted(uint64_t begin, uint64_t end) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      uint64_t to = begin;
      for (const auto& [from, range_end] : started_) {
        if (from <= to) to = std::max(to, range_end);
      }
      return to >= end;
    });
    started_.clear();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<uint64_t, uint64_t> started_;  // Begin and end; guarded by it.
  WriteBehind writer_{[this](uint64_t offset, uint64_t length) {
    const std::lock_guard lock(mutex_);
    started_.emplace(offset, offset + length);
    changed_.notify_all();
    return 0;
  }};
};

TEST_F(WriteBehindTest, WhatIsWrittenInOrderIsStartedAChunkBehindTheWriter) {
  WriteInOrder(0, 10 * kChunk + kRequest);
  AwaitStarted(0, 10 * kChunk);
  EXPECT_EQ(writer_.Error(), 0);
}

TEST_F(WriteBehindTest, WhatWasWrittenLateIsStartedWithTheNextChunk) {
  WriteInOrder(0, kChunk - kRequest);
  writer_.NoteWrite(kChunk, kRequest);
  AwaitStarted(0, kChunk);
  writer_.NoteWrite(kChunk - kRequest, kRequest);
  WriteInOrder(kChunk + kRequest, 2 * kChunk + kRequest);
  AwaitStarted(0, 2 * kChunk);
}

TEST_F(WriteBehindTest, WhatIsBetweenTwoWalksIsNotStarted) {
  WriteInOrder(0, 2 * kChunk + kRequest);
  AwaitStarted(0, 2 * kChunk);
  WriteInOrder(100 * kChunk, 101 * kChunk + kRequest);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !started_.empty(); });
  EXPECT_EQ(started_.begin()->first, 100 * kChunk);
  EXPECT_EQ(started_.rbegin()->second, 101 * kChunk);
}

TEST(WriteBehindThreadsTest, NobodyButTheFlushWaitsForTheDisk) {
  std::latch disk_is_asked(1);
  std::latch disk_has_room(1);
  WriteBehind writer([&](uint64_t, uint64_t) {
    disk_is_asked.count_down();
    disk_has_room.wait();
    return EIO;
  });
  for (uint64_t at = 0; at < kChunk + kRequest; at += kRequest) {
    writer.NoteWrite(at, kRequest);
  }
  disk_is_asked.wait();
  for (uint64_t at = kChunk; at < 9 * kChunk; at += kRequest) {
    writer.NoteWrite(at, kRequest);
  }
  // What the disk has lost it says at the end: too late for who asks before.
  auto error = std::async(std::launch::async, [&] { return writer.Error(); });
  EXPECT_EQ(error.wait_for(std::chrono::milliseconds(100)),
            std::future_status::timeout);
  disk_has_room.count_down();
  EXPECT_EQ(error.get(), EIO);
  EXPECT_EQ(writer.Error(), EIO);
}

TEST(WriteBehindThreadsTest, NothingIsStartedAfterTheStop) {
  std::atomic<int> starts = 0;
  std::atomic<bool> is_starting = false;
  WriteBehind writer([&](uint64_t, uint64_t) {
    is_starting = true;
    ++starts;
    is_starting = false;
    return 0;
  });
  for (uint64_t at = 0; at < 4 * kChunk; at += kRequest) {
    writer.NoteWrite(at, kRequest);
  }
  writer.Stop();
  EXPECT_FALSE(is_starting);
  const int before = starts;
  EXPECT_LE(before, 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(starts, before);
}

// Not in a tmpfs, which stores nothing.
TEST(WriteBehindFileTest, TheHostHasMostOfAFileStoredBeforeItsFlush) {
  constexpr uint64_t kSize = 6 * kChunk;
  const ScratchFolder folder;
  ASSERT_FALSE(IsInTmpfs(folder.path())) << "set TMPDIR to a folder on a disk";
  if (IsInOverlayfs(folder.path())) {
    GTEST_SKIP() << "an overlayfs stores nothing early; set TMPDIR to a folder "
                    "on a disk";
  }
  const auto device = WritableFileDevice::Create(folder / "file");
  const Bytes bytes(kRequest, std::byte{1});
  for (uint64_t at = 0; at < kSize; at += kRequest) device->Write(at, bytes);
  const int fd = open((folder / "file").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  // The thread may be late.
  for (int waits = 300; waits > 0; --waits) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const auto dirty = DirtyBytes(fd, kSize);
    if (dirty ? *dirty <= kChunk : waits <= 280) break;
  }
  EXPECT_LE(UnstoredBytes(fd, kSize), kChunk);
  close(fd);
}

// sync_file_range(2) fails from now on.
void LetNothingBeStored() {
  std::array<sock_filter, 4> code = {
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                           offsetof(seccomp_data, nr)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sync_file_range, 0,
                           1),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EBADMSG),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program = {.len = code.size(), .filter = code.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    throw std::runtime_error("prctl");
  }
}

// ext4 drops what it finds no blocks for, and fdatasync(2) knows nothing of it.
TEST(WriteBehindFileTest, WhatTheHostCouldNotStoreFailsTheFlushForGood) {
  const ScratchFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    LetNothingBeStored();
    const auto device = WritableFileDevice::Create(folder / "file");
    const Bytes bytes(kRequest, std::byte{1});
    for (uint64_t at = 0; at < 2 * kChunk; at += kRequest) {
      device->Write(at, bytes);
    }
    const auto flush = [&]() -> std::string {
      try {
        device->Flush();
      } catch (const IoError& error) {
        return error.what();
      }
      return "";
    };
    std::string failure;
    for (int tries = 1000; tries > 0 && failure.empty(); --tries) {
      failure = flush();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    const std::string again = flush();
    const bool is_told =
        failure.find("file") != std::string::npos &&
        again.find("since a flush has failed") != std::string::npos;
    _exit(is_told ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace pellucid
