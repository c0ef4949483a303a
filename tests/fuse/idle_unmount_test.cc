// Mounts that end by themselves when nobody uses them.

#include "fuse/idle_unmount.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/fuse/mount_fixture.h"
#include "tests/fuse/writable_model_device.h"

namespace pellucid::fuse {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 8'000'123;
constexpr std::chrono::milliseconds kTimeout{400};
// Long enough for a mount that does not know that it is in use to have gone.
constexpr std::chrono::milliseconds kLong = 5 * kTimeout;

class IdleUnmountTest : public MountTest,
                        public ::testing::WithParamInterface<MountpointKind> {
 protected:
  void MountDisk(const std::string& options = "rw") {
    set_idle_timeout(kTimeout);
    auto device = std::make_unique<WritableModelDevice>(disk_);
    WritableDevice* const writable = device.get();
    ASSERT_NO_FATAL_FAILURE(
        Mount(MountedDevice(std::move(device), writable), GetParam(), options));
  }
  void Write(char value) {
    const OpenFile file(disk(), O_WRONLY);
    const std::string bytes(kSize, value);
    ASSERT_EQ(pwrite(file.fd(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }
  // Gone by itself, with nothing lost.
  void ExpectGone() {
    EXPECT_EQ(AwaitServer(), 0) << Log();
    EXPECT_FALSE(IsMounted(mountpoint()));
    EXPECT_EQ(disk_.journal().writes_since_flush, 0U);
    EXPECT_EQ(Log(), "");
  }
  void ExpectIsDisk(char value) {
    EXPECT_EQ(std::ranges::count(disk_.bytes(), static_cast<std::byte>(value)),
              static_cast<std::ptrdiff_t>(kSize));
  }

  SharedDisk disk_{kSize};
};

INSTANTIATE_TEST_SUITE_P(, IdleUnmountTest,
                         ::testing::Values(MountpointKind::kFile,
                                           MountpointKind::kDirectory),
                         [](const auto& param) {
                           return param.param == MountpointKind::kFile
                                      ? "File"
                                      : "Directory";
                         });

TEST_P(IdleUnmountTest, AMountThatNobodyUsesGoes) {
  const auto start = std::chrono::steady_clock::now();
  MountDisk();
  ExpectGone();
  EXPECT_GE(std::chrono::steady_clock::now() - start, kTimeout);
}

TEST_P(IdleUnmountTest, AReadOnlyOneGoesToo) {
  MountDisk("ro");
  ExpectGone();
}

TEST_P(IdleUnmountTest, WhatWasWrittenIsDurableThen) {
  MountDisk();
  Write('w');
  ExpectGone();
  ExpectIsDisk('w');
}

TEST_P(IdleUnmountTest, AnOpenFileKeepsIt) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDONLY);
    ASSERT_GE(file.fd(), 0);
    std::this_thread::sleep_for(kLong);
    ASSERT_TRUE(IsMounted(mountpoint()));
    char byte = 0;
    EXPECT_EQ(pread(file.fd(), &byte, 1, 0), 1);
    // Nor is the device bothered meanwhile.
    EXPECT_EQ(disk_.journal().flushes, 0U);
  }
  // Its time begins with the close.
  const auto closed = std::chrono::steady_clock::now();
  ExpectGone();
  EXPECT_GE(std::chrono::steady_clock::now() - closed, kTimeout);
}

TEST_P(IdleUnmountTest, RequestsKeepIt) {
  MountDisk();
  const auto end = std::chrono::steady_clock::now() + kLong;
  while (std::chrono::steady_clock::now() < end) {
    struct statvfs status = {};
    ASSERT_EQ(statvfs(mountpoint().c_str(), &status), 0);
    ASSERT_EQ(status.f_blocks, (kSize + 4095) / 4096) << "it is gone";
    std::this_thread::sleep_for(kTimeout / 8);
  }
  ASSERT_TRUE(IsMounted(mountpoint()));
  ExpectGone();
}

// The server hears nothing of these: the kernel knows.
TEST_P(IdleUnmountTest, WhatTheKernelAloneKnowsOfKeepsIt) {
  MountDisk();
  {
    // As a working directory would, or a file handle that is only a name.
    const OpenFile file(mountpoint(), O_PATH);
    ASSERT_GE(file.fd(), 0);
    std::this_thread::sleep_for(kLong);
    ASSERT_TRUE(IsMounted(mountpoint()));
  }
  ExpectGone();
}

TEST_P(IdleUnmountTest, WhatCannotBeMadeDurableKeepsIt) {
  MountDisk();
  disk_.journal().flush_errno = ENOSPC;
  Write('x');
  std::this_thread::sleep_for(kLong);
  ASSERT_TRUE(IsMounted(mountpoint()));
  EXPECT_THAT(Log(), HasSubstr("stays mounted, for what was written to it "
                               "could not be made durable: No space left"));
  disk_.journal().flush_errno = 0;
  EXPECT_EQ(AwaitServer(), 0) << Log();
  EXPECT_FALSE(IsMounted(mountpoint()));
  EXPECT_EQ(disk_.journal().writes_since_flush, 0U);
  ExpectIsDisk('x');
}

TEST_P(IdleUnmountTest, OthersMayEndItBefore) {
  MountDisk();
  Write('y');
  EXPECT_EQ(EndByUnmount(), 0) << Log();
  ExpectIsDisk('y');
  MountDisk();
  EXPECT_EQ(EndServer(SIGTERM), 0) << Log();
}

TEST_P(IdleUnmountTest, WhatWasDetachedIsLeftAlone) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR);
    ASSERT_EQ(umount2(mountpoint().c_str(), MNT_DETACH), 0);
    std::this_thread::sleep_for(kLong);
    const std::string bytes(kSize, 'z');
    EXPECT_EQ(pwrite(file.fd(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }
  EXPECT_EQ(AwaitServer(), 0) << Log();
  EXPECT_EQ(disk_.journal().writes_since_flush, 0U);
  ExpectIsDisk('z');
}

}  // namespace
}  // namespace pellucid::fuse
