#include "fuse/unmount.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/fuse/model_device.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

template <typename Exception>
std::string ErrorOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Exception& error) {
    return error.what();
  }
  return "not thrown";
}

class UnmountTest : public MountTest {
 protected:
  void MountSmallDevice(MountpointKind kind) {
    ASSERT_NO_FATAL_FAILURE(
        Mount(std::make_unique<ModelDevice>(100'000, std::vector<ByteRange>{}),
              kind));
  }
  bool ServerHasEnded() const {
    siginfo_t info = {};
    waitid(P_PID, static_cast<id_t>(server()), &info,
           WEXITED | WNOHANG | WNOWAIT);
    return info.si_pid == server();
  }
};

TEST_F(UnmountTest, ServerHasEndedWhenItReturns) {
  for (const auto kind : {MountpointKind::kFile, MountpointKind::kDirectory}) {
    ASSERT_NO_FATAL_FAILURE(MountSmallDevice(kind));
    Unmount(mountpoint(), UnmountMode::kWhenIdle);
    EXPECT_TRUE(ServerHasEnded());
    EXPECT_FALSE(IsMounted(mountpoint()));
    EXPECT_EQ(AwaitServer(), 0) << Log();
  }
}

TEST_F(UnmountTest, LinksAndRelativeNamesLeadToTheMountpoint) {
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kDirectory));
  fs::create_directory_symlink(mountpoint(), folder() / "link");
  const fs::path old = fs::current_path();
  fs::current_path(folder());
  EXPECT_NO_THROW(Unmount("link", UnmountMode::kWhenIdle));
  fs::current_path(old);
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_F(UnmountTest, MountInUseStaysUnlessItIsLazy) {
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kDirectory));
  {
    const OpenFile file(disk(), O_RDONLY);
    EXPECT_THAT(
        ErrorOf<Error>([&] { Unmount(mountpoint(), UnmountMode::kWhenIdle); }),
        HasSubstr("--lazy"));
    EXPECT_TRUE(IsMounted(mountpoint()));

    Unmount(mountpoint(), UnmountMode::kLazy);
    EXPECT_FALSE(IsMounted(mountpoint()));
    char byte = 0;
    EXPECT_EQ(pread(file.fd(), &byte, 1, 99'999), 1);
    EXPECT_FALSE(ServerHasEnded());
  }
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_F(UnmountTest, WhatIsNotOursIsRefused) {
  const auto error_for = [](const fs::path& path) {
    return ErrorOf<UsageError>([&] { Unmount(path, UnmountMode::kWhenIdle); });
  };
  EXPECT_THAT(error_for("/proc"), HasSubstr("type proc"));
  EXPECT_THAT(error_for(folder()), HasSubstr("nothing is mounted"));
  EXPECT_THAT(error_for(folder() / "none"), HasSubstr("No such file"));
  EXPECT_THAT(error_for(""), HasSubstr("empty"));
}

TEST_F(UnmountTest, DeadServerLeavesAMountThatCanBeEnded) {
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kDirectory));
  EXPECT_TRUE(WIFSIGNALED(EndServer(SIGKILL)));
  Unmount(mountpoint(), UnmountMode::kWhenIdle);
  EXPECT_FALSE(IsMounted(mountpoint()));
}

TEST_F(UnmountTest, LazyUnmountOfAServerThatDoesNotAnswerPromisesNothing) {
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kFile));
  kill(server(), SIGSTOP);
  EXPECT_NO_THROW(Unmount(mountpoint(), UnmountMode::kLazy));
  EXPECT_FALSE(IsMounted(mountpoint()));
  kill(server(), SIGCONT);
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

TEST_F(UnmountTest, ServerThatDoesNotAnswerIsNotWaitedFor) {
  ASSERT_NO_FATAL_FAILURE(MountSmallDevice(MountpointKind::kFile));
  kill(server(), SIGSTOP);
  // Not before all of its threads have stopped: one that has taken the question
  // and does not answer it keeps whoever asks, and so the mount, busy.
  int status = 0;
  ASSERT_EQ(waitpid(server(), &status, WUNTRACED), server());
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_THAT(
      ErrorOf<Error>([&] { Unmount(mountpoint(), UnmountMode::kWhenIdle); }),
      HasSubstr("unmounted, but cannot tell whether the serving process has "
                "ended"));
  EXPECT_FALSE(IsMounted(mountpoint()));
  kill(server(), SIGCONT);
  EXPECT_EQ(AwaitServer(), 0) << Log();
}

}  // namespace
}  // namespace pellucid::fuse
