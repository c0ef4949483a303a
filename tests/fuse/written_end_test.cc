// What is in the device when a mount that was written to has ended.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "fuse/mount_table.h"
#include "fuse/server_process.h"
#include "fuse/unmount.h"
#include "tests/fuse/mount_fixture.h"
#include "tests/fuse/writable_model_device.h"

namespace pellucid::fuse {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 40'000'123;

class WrittenEndTest : public MountTest,
                       public ::testing::WithParamInterface<MountpointKind> {
 protected:
  void MountDisk() {
    auto device = std::make_unique<WritableModelDevice>(disk_);
    WritableDevice* const writable = device.get();
    ASSERT_NO_FATAL_FAILURE(
        Mount(MountedDevice(std::move(device), writable), GetParam(), "rw"));
  }
  // Writes through the page cache and a mapping; fsyncs nothing.
  void Scribble(const OpenFile& file) {
    ASSERT_GE(file.fd(), 0);
    const std::vector<std::byte> bytes(20'000'000, std::byte{1});
    ASSERT_EQ(pwrite(file.fd(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    void* const memory =
        mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd(), 0);
    ASSERT_NE(memory, MAP_FAILED);
    for (uint64_t i = 20'000'000; i < kSize; i += 100'000) {
      static_cast<std::byte*>(memory)[i] = std::byte{2};
    }
    static_cast<std::byte*>(memory)[kSize - 1] = std::byte{2};
    munmap(memory, kSize);
  }
  // Lets the kernel drop pages because they could not be written, and tell
  // nobody yet.
  void LosePages(int error) {
    void* memory = nullptr;
    {
      const OpenFile file(disk(), O_RDWR);
      memory =
          mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd(), 0);
    }
    ASSERT_NE(memory, MAP_FAILED);
    *static_cast<std::byte*>(memory) = std::byte{3};
    disk_.journal().write_errno = error;
    munmap(memory, 4096);
    disk_.journal().write_errno = 0;
  }
  void ExpectAllIsThere() {
    const auto bytes = disk_.bytes();
    EXPECT_EQ(std::ranges::count(bytes.first(20'000'000), std::byte{1}),
              20'000'000);
    EXPECT_EQ(std::ranges::count(bytes.subspan(20'000'000), std::byte{2}), 202);
    EXPECT_EQ(bytes[kSize - 1], std::byte{2});
    EXPECT_EQ(disk_.journal().writes_since_flush, 0U);
    EXPECT_GE(disk_.journal().flushes, 1U);
  }

  SharedDisk disk_{kSize};
};

INSTANTIATE_TEST_SUITE_P(, WrittenEndTest,
                         ::testing::Values(MountpointKind::kFile,
                                           MountpointKind::kDirectory),
                         [](const auto& param) {
                           return param.param == MountpointKind::kFile
                                      ? "File"
                                      : "Directory";
                         });

TEST_P(WrittenEndTest, UnmountingAfterCloseKeepsEverything) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR);
    Scribble(file);
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
  ExpectAllIsThere();
}

TEST_P(WrittenEndTest, SignalAfterCloseKeepsEverything) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR);
    Scribble(file);
  }
  EXPECT_EQ(EndServer(SIGTERM), 0) << Log();
  ExpectAllIsThere();
}

TEST_P(WrittenEndTest, SignalWhileTheFileIsOpenKeepsEverything) {
  MountDisk();
  const OpenFile file(disk(), O_RDWR);
  Scribble(file);
  EXPECT_EQ(EndServer(SIGINT), 0) << Log();
  EXPECT_FALSE(IsMounted(mountpoint()));
  ExpectAllIsThere();
}

TEST_P(WrittenEndTest, LazyUnmountKeepsWhatComesUntilTheLastClose) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR);
    Unmount(mountpoint(), UnmountMode::kLazy);
    Scribble(file);
  }
  EXPECT_EQ(AwaitServer(), 0) << Log();
  ExpectAllIsThere();
}

TEST_P(WrittenEndTest, SignalAfterALazyUnmountKeepsEverything) {
  MountDisk();
  const OpenFile file(disk(), O_RDWR);
  Unmount(mountpoint(), UnmountMode::kLazy);
  Scribble(file);
  EXPECT_EQ(EndServer(SIGTERM), 0) << Log();
  ExpectAllIsThere();
}

TEST_P(WrittenEndTest, UnmountWaitsForASlowFlush) {
  MountDisk();
  disk_.journal().flush_milliseconds = 3000;
  { Scribble(OpenFile(disk(), O_RDWR)); }
  const auto start = std::chrono::steady_clock::now();
  Unmount(mountpoint(), UnmountMode::kWhenIdle);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
  ExpectAllIsThere();
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_P(WrittenEndTest, FailureOfTheLastFlushIsTold) {
  for (const bool by_signal : {false, true}) {
    MountDisk();
    disk_.journal().flush_errno = EIO;
    const int status = by_signal ? EndServer(SIGTERM) : EndByUnmount();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 0) << status;
    EXPECT_THAT(Log(), HasSubstr("model: flush"));
    disk_.journal().flush_errno = 0;
  }
}

TEST_P(WrittenEndTest, UnmountThatCannotFlushLeavesTheMount) {
  MountDisk();
  { Scribble(OpenFile(disk(), O_RDWR)); }
  disk_.journal().flush_errno = ENOSPC;
  for (int i = 0; i < 2; ++i) {
    try {
      Unmount(mountpoint(), UnmountMode::kWhenIdle);
      ADD_FAILURE() << "nothing was told";
    } catch (const IoError& error) {
      EXPECT_EQ(error.host_errno(), ENOSPC);
      EXPECT_THAT(error.what(), HasSubstr(mountpoint().native()));
      EXPECT_THAT(error.what(), HasSubstr("--lazy"));
    }
    ASSERT_TRUE(IsMounted(mountpoint()));
  }
  disk_.journal().flush_errno = 0;
  Unmount(mountpoint(), UnmountMode::kWhenIdle);
  ExpectAllIsThere();
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_P(WrittenEndTest, UnmountTellsOfAFailureBehindItsFsync) {
  MountDisk();
  { Scribble(OpenFile(disk(), O_RDWR)); }
  disk_.journal().good_flushes = disk_.journal().flushes + 1;
  disk_.journal().flush_errno = EDQUOT;
  try {
    Unmount(mountpoint(), UnmountMode::kWhenIdle);
    ADD_FAILURE() << "nothing was told";
  } catch (const IoError& error) {
    EXPECT_EQ(error.host_errno(), EDQUOT);
    EXPECT_THAT(error.what(), HasSubstr(mountpoint().native()));
    EXPECT_THAT(error.what(), HasSubstr("lost"));
  }
  EXPECT_FALSE(IsMounted(mountpoint()));
  const int status = AwaitServer();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 0) << status;
}

// Somebody writes when `pellucid umount` has called fsync already.
TEST_P(WrittenEndTest, PagesThatAreLostBehindTheFsyncAreTold) {
  MountDisk();
  const auto server = ServerProcess::Find(FindMount(mountpoint()).value());
  ASSERT_TRUE(server);
  LosePages(ENOSPC);
  const int status = EndByUnmount();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 0) << status;
  ASSERT_TRUE(server->WaitForEnd(std::chrono::seconds(20)));
  try {
    server->CheckEnd(mountpoint());
    ADD_FAILURE() << "nothing was told";
  } catch (const IoError& error) {
    EXPECT_EQ(error.host_errno(), ENOSPC);
  }
}

TEST_P(WrittenEndTest, PagesThatAreLostAtASignalAreTold) {
  MountDisk();
  LosePages(ENOSPC);
  const int status = EndServer(SIGTERM);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 0) << status;
  EXPECT_THAT(Log(), HasSubstr("No space left on device"));
}

TEST_P(WrittenEndTest, LossThatAnFsyncHasToldIsNotToldAgain) {
  MountDisk();
  LosePages(ENOSPC);
  {
    const OpenFile file(disk(), O_RDWR);
    EXPECT_EQ(fsync(file.fd()), -1);
    EXPECT_EQ(errno, ENOSPC);
  }
  EXPECT_NO_THROW(Unmount(mountpoint(), UnmountMode::kWhenIdle));
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_P(WrittenEndTest, UnmountWaitsForAUserWhoIsAboutToClose) {
  MountDisk();
  auto file = std::make_unique<OpenFile>(disk(), O_RDWR);
  ASSERT_GE(file->fd(), 0);
  const std::jthread closer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    file.reset();
  });
  EXPECT_NO_THROW(Unmount(mountpoint(), UnmountMode::kWhenIdle));
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_P(WrittenEndTest, ServerThatIsKilledBeforeItsLastFlushIsNoSuccess) {
  MountDisk();
  const auto server = ServerProcess::Find(FindMount(mountpoint()).value());
  ASSERT_TRUE(server);
  EndServer(SIGKILL);
  Unmount(mountpoint(), UnmountMode::kLazy);
  ASSERT_TRUE(server->WaitForEnd(std::chrono::seconds(20)));
  EXPECT_THROW(server->CheckEnd(mountpoint()), Error);
}

TEST_P(WrittenEndTest, LazyUnmountGivesUpWhatCannotBeFlushed) {
  MountDisk();
  { Scribble(OpenFile(disk(), O_RDWR)); }
  disk_.journal().flush_errno = ENOSPC;
  EXPECT_NO_THROW(Unmount(mountpoint(), UnmountMode::kLazy));
  EXPECT_FALSE(IsMounted(mountpoint()));
  const int status = AwaitServer();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 0) << status;
}

TEST_P(WrittenEndTest, DeferredErrorIsReportedByClose) {
  auto device = std::make_unique<WritableModelDevice>(disk_);
  WritableDevice* const writable = device.get();
  MountedDevice mounted(std::move(device), writable);
  mounted.report_deferred_error = [this] {
    // What a cache would do: once.
    const int error = disk_.journal().flush_errno.exchange(0);
    if (error != 0) throw IoError(error, "model: deferred write");
  };
  ASSERT_NO_FATAL_FAILURE(Mount(std::move(mounted), GetParam(), ""));
  const auto close_file = [&](int flags) {
    const int fd = open(disk().c_str(), flags | O_CLOEXEC);
    errno = 0;
    return close(fd);
  };
  EXPECT_EQ(close_file(O_RDWR), 0);
  disk_.journal().flush_errno = ENOSPC;
  EXPECT_EQ(close_file(O_RDONLY), 0);
  EXPECT_EQ(close_file(O_WRONLY), -1);
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(close_file(O_WRONLY), 0);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

}  // namespace
}  // namespace pellucid::fuse
