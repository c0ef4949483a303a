// Mounts of a user without privileges, by way of fusermount3. Run by root, the
// tests act as `nobody`, and open /dev/fuse to everybody for as long as they
// take where it is root's alone (on most systems it is open anyway). A lock on
// the device keeps tests that run at the same time from closing it too early.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "fuse/unmount.h"
#include "tests/fuse/model_device.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kFuseDevice[] = "/dev/fuse";
constexpr uid_t kNobody = 65534;
constexpr uint64_t kSize = 100'000;

// Root becomes nobody; anybody else stays.
void DropPrivileges() {
  if (geteuid() != 0) return;
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0) {
    throw std::runtime_error("cannot become nobody");
  }
}

class OrdinaryUserTest : public MountTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(MountTest::SetUp());
    set_before_mount(DropPrivileges);
    if (geteuid() != 0) return;
    lock_ = open(kFuseDevice, O_RDWR | O_CLOEXEC);
    ASSERT_GE(lock_, 0);
    ASSERT_EQ(flock(lock_, LOCK_EX), 0);
    struct stat status = {};
    ASSERT_EQ(stat(kFuseDevice, &status), 0);
    device_mode_ = status.st_mode & 07777;
    ASSERT_EQ(chmod(kFuseDevice, 0666), 0);
    for (const char* name : {"", "file", "directory"}) {
      ASSERT_EQ(chown((folder() / name).c_str(), kNobody, kNobody), 0);
    }
  }
  void TearDown() override {
    MountTest::TearDown();
    if (lock_ < 0) return;
    EXPECT_EQ(chmod(kFuseDevice, device_mode_), 0);
    close(lock_);
  }

  void MountSmallDevice(MountpointKind kind) {
    ASSERT_NO_FATAL_FAILURE(Mount(
        std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{}), kind));
  }
  static int StatusOfUser(const std::function<int()>& body) {
    return WaitForEnd(Fork([&] {
      DropPrivileges();
      return body();
    }));
  }

 private:
  int lock_ = -1;
  mode_t device_mode_ = 0;
};

TEST_F(OrdinaryUserTest, OwnerReadsAndNotEvenRootDoes) {
  for (const auto kind : {MountpointKind::kFile, MountpointKind::kDirectory}) {
    ASSERT_NO_FATAL_FAILURE(MountSmallDevice(kind));
    EXPECT_EQ(StatusOfUser([&] {
                const OpenFile file(disk(), O_RDONLY);
                char last = 0;
                if (pread(file.fd(), &last, 1, kSize - 1) != 1) return 1;
                struct stat status = {};
                stat(disk().c_str(), &status);
                return status.st_uid == geteuid() ? 0 : 2;
              }),
              0);
    if (geteuid() == 0) {
      const OpenFile file(disk(), O_RDONLY);
      EXPECT_EQ(file.fd(), -1);
      EXPECT_EQ(errno, EACCES);
    }
    EXPECT_EQ(EndServer(SIGTERM), 0) << Log();
    EXPECT_FALSE(IsMounted(mountpoint()));
  }
}

TEST_F(OrdinaryUserTest, SignalUnmountsWhileAFileIsOpen) {
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kFile));
  EXPECT_EQ(StatusOfUser([&] {
              const OpenFile file(disk(), O_RDONLY);
              if (file.fd() < 0) return 1;
              kill(server(), SIGTERM);
              for (int i = 0; i < 1000 && IsMounted(mountpoint()); ++i) {
                usleep(10'000);
              }
              return IsMounted(mountpoint()) ? 2 : 0;
            }),
            0);
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_F(OrdinaryUserTest, UnmountsWhatIsTheirs) {
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kDirectory));
  EXPECT_EQ(StatusOfUser([&] {
              const OpenFile file(disk(), O_RDONLY);
              try {
                Unmount(mountpoint(), UnmountMode::kWhenIdle);
              } catch (const Error& error) {
                const std::string text = error.what();
                return text.find("--lazy") != std::string::npos ? 0 : 1;
              }
              return 2;
            }),
            0);
  EXPECT_EQ(StatusOfUser([&] {
              Unmount(mountpoint(), UnmountMode::kWhenIdle);
              return 0;
            }),
            0);
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_F(OrdinaryUserTest, RootUnmountsAndWaitsToo) {
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kDirectory));
  Unmount(mountpoint(), UnmountMode::kWhenIdle);
  // Had it not waited, the server might still be there.
  siginfo_t info = {};
  waitid(P_PID, static_cast<id_t>(server()), &info,
         WEXITED | WNOHANG | WNOWAIT);
  EXPECT_EQ(info.si_pid, server());
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_F(OrdinaryUserTest, WhatNobodyUsesGoesByItself) {
  set_idle_timeout(std::chrono::milliseconds(300));
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kDirectory));
  EXPECT_EQ(AwaitServer(), 0) << Log();
  EXPECT_FALSE(IsMounted(mountpoint()));
  EXPECT_EQ(Log(), "");
}

TEST_F(OrdinaryUserTest, RefusedAllowOtherNamesTheSettingThatIsMissing) {
  bool is_allowed = false;
  std::ifstream configuration("/etc/fuse.conf");
  for (std::string line; std::getline(configuration, line);) {
    if (line.starts_with("user_allow_other")) is_allowed = true;
  }
  const bool mounted =
      TryMount(std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{}),
               MountpointKind::kFile, "allow_other");
  EXPECT_EQ(mounted, is_allowed);
  if (mounted) {
    EXPECT_EQ(EndServer(SIGTERM), 0);
  } else {
    EXPECT_THAT(Log(), HasSubstr("user_allow_other must stand in"));
  }
}

TEST_F(OrdinaryUserTest, MountpointOfSomebodyElseIsRefused) {
  if (geteuid() == 0) {
    ASSERT_EQ(chown((folder() / "file").c_str(), 0, 0), 0);
  } else {
    fs::permissions(folder() / "file", fs::perms{0400});
  }
  EXPECT_FALSE(
      TryMount(std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{}),
               MountpointKind::kFile, "ro"));
  EXPECT_THAT(Log(), HasSubstr("right to write to the mountpoint"));
}

}  // namespace
}  // namespace pellucid::fuse
