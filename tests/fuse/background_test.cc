#include "fuse/background.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
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
#include <thread>

#include "engine/errors.h"
#include "fuse/mount_session.h"
#include "tests/fuse/model_device.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using OnReady = std::function<void()>;

// A pipe on which servers show that they have come to some point.
class Signpost {
 public:
  Signpost() {
    if (pipe2(ends_, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  }
  ~Signpost() {
    close(ends_[0]);
    close(ends_[1]);
  }
  void Show() const { (void)!write(ends_[1], "x", 1); }
  void Await() const {
    char byte = 0;
    ASSERT_EQ(read(ends_[0], &byte, 1), 1);
  }

 private:
  int ends_[2];
};

// The command that a user calls runs in a child of the test, and the server in
// a child of that, which becomes the test's when the command has ended.
class BackgroundTest : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
  }
  void TearDown() override {
    MountTest::TearDown();
    errno = 0;
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a process is left over";
    EXPECT_EQ(errno, ECHILD);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
  }

  static int ExitCodeOf(pid_t command) {
    const int status = WaitForEnd(command);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    return WEXITSTATUS(status);
  }
};

TEST_F(BackgroundTest, FailureBeforeReadyIsTheCommandsExitCode) {
  const pid_t command =
      Fork([] { return RunInBackground([](const OnReady&) { return 5; }); });
  EXPECT_EQ(ExitCodeOf(command), 5);
}

TEST_F(BackgroundTest, ExceptionReachesTheChildsCallerOnly) {
  const fs::path caught = folder() / "caught";
  const pid_t command = Fork([&] {
    try {
      return RunInBackground(
          [](const OnReady&) -> int { throw WrongPassphrase("wrong"); });
    } catch (const WrongPassphrase&) {
      std::ofstream(caught, std::ios::app) << "once";
      return 3;
    }
  });
  EXPECT_EQ(ExitCodeOf(command), 3);
  EXPECT_EQ(fs::file_size(caught), 4U);
}

TEST_F(BackgroundTest, CommandEndsWhenTheServerIsReadyAndTheServerGoesOn) {
  const Signpost go_on;
  const pid_t command = Fork([&] {
    return RunInBackground([&](const OnReady& on_ready) {
      on_ready();
      go_on.Await();
      return 17;
    });
  });
  EXPECT_EQ(ExitCodeOf(command), 0);
  go_on.Show();
  EXPECT_EQ(ExitCodeOf(-1), 17);
}

TEST_F(BackgroundTest, ReadyServerHasLeftTheTerminal) {
  const fs::path report = folder() / "report";
  const pid_t command = Fork([&] {
    return RunInBackground([&](const OnReady& on_ready) {
      on_ready();
      std::ofstream file(report);
      file << (getsid(0) == getpid()) << fs::current_path().string();
      for (const char* fd : {"0", "1", "2"}) {
        file << fs::read_symlink(fs::path("/proc/self/fd") / fd).string();
      }
      return 0;
    });
  });
  EXPECT_EQ(ExitCodeOf(command), 0);
  EXPECT_EQ(ExitCodeOf(-1), 0);
  std::string text;
  std::getline(std::ifstream(report), text);
  EXPECT_EQ(text, "1//dev/null/dev/null/dev/null");
}

TEST_F(BackgroundTest, ServerThatCrashesIsReported) {
  const pid_t command = Fork([] {
    try {
      return RunInBackground([](const OnReady&) {
        signal(SIGSEGV, SIG_DFL);
        return raise(SIGSEGV);
      });
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("signal 11"));
      return static_cast<int>(error.exit_code()) + 100;
    }
  });
  EXPECT_EQ(ExitCodeOf(command), 101);
}

TEST_F(BackgroundTest, EndingTheWaitingCommandEndsTheServer) {
  const Signpost waiting;
  const pid_t command = Fork([&] {
    try {
      return RunInBackground([&](const OnReady&) {
        waiting.Show();
        pause();
        return 0;
      });
    } catch (const Error&) {
      return 1;
    }
  });
  waiting.Await();
  // The parent may still be on its way to waiting; before that it dies of it.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  kill(command, SIGTERM);
  EXPECT_EQ(ExitCodeOf(command), 1);
}

TEST_F(BackgroundTest, MountOfAKilledCommandDoesNotStay) {
  const Signpost begun;
  const Signpost go_on;
  const pid_t command = Fork([&] {
    return RunInBackground([&](const OnReady& on_ready) {
      begun.Show();
      go_on.Await();
      const Mountpoint mountpoint =
          CheckMountpoint(folder() / "file", {folder() / "image"});
      MountAttendant attendant(mountpoint);
      MountSession session(
          std::make_unique<ModelDevice>(4096, std::vector<ByteRange>{}),
          image(), mountpoint, {}, LogTarget::kSystemLog, attendant);
      session.Run(on_ready);
      return 21;
    });
  });
  begun.Await();
  kill(command, SIGKILL);
  EXPECT_TRUE(WIFSIGNALED(WaitForEnd(command)));
  go_on.Show();
  EXPECT_EQ(ExitCodeOf(-1), 21);
}

}  // namespace
}  // namespace pellucid::fuse
