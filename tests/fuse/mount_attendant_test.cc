#include "fuse/mount_attendant.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>

#include "engine/errors.h"
#include "fuse/error_log.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

const Mountpoint kNowhere = {"/nowhere", MountpointKind::kFile};

// A process that has an attendant and waits to be killed.
struct Pair {
  pid_t parent;
  pid_t attendant;
};

Pair StartPair() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  const pid_t parent = Fork([&] {
    const MountAttendant attendant(kNowhere);
    const pid_t pid = attendant.pid();
    (void)!write(ends[1], &pid, sizeof pid);
    pause();
    return 0;
  });
  pid_t attendant = 0;
  (void)!read(ends[0], &attendant, sizeof attendant);
  close(ends[0]);
  close(ends[1]);
  return {parent, attendant};
}

class MountAttendantTest : public ::testing::Test {
 protected:
  // The attendant of a parent that was killed is ours to wait for.
  void SetUp() override { prctl(PR_SET_CHILD_SUBREAPER, 1); }
  void TearDown() override { prctl(PR_SET_CHILD_SUBREAPER, 0); }
};

TEST_F(MountAttendantTest, EndsWithItsParentHoweverThatEnds) {
  const Pair pair = StartPair();
  kill(pair.parent, SIGKILL);
  WaitForEnd(pair.parent);
  EXPECT_EQ(WaitForEnd(pair.attendant), 0);
}

TEST_F(MountAttendantTest, MindsNoSignalThatEndsItsParent) {
  const Pair pair = StartPair();
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE}) {
    kill(pair.attendant, number);
  }
  kill(pair.parent, SIGKILL);
  WaitForEnd(pair.parent);
  EXPECT_EQ(WaitForEnd(pair.attendant), 0);  // Not by a signal.
}

TEST_F(MountAttendantTest, HoldsNoFileOfItsParent) {
  const ScratchFolder folder;
  WriteHostFile(folder / "image", "image");
  const OpenFile image(folder / "image", O_RDONLY);
  const Pair pair = StartPair();
  const fs::path process = fs::path("/proc") / std::to_string(pair.attendant);
  // It may still be on its way there.
  std::set<std::string> open_files;
  for (int i = 0; i < 1000; ++i) {
    open_files.clear();
    for (const auto& entry : fs::directory_iterator(process / "fd")) {
      open_files.insert(entry.path().filename());
    }
    if (open_files.size() == 4) break;
    usleep(5'000);
  }
  EXPECT_THAT(open_files, ElementsAre("0", "1", "2", "3"));
  for (const char* stream : {"0", "1", "2"}) {
    EXPECT_EQ(fs::read_symlink(process / "fd" / stream), "/dev/null");
  }
  EXPECT_EQ(fs::read_symlink(process / "cwd"), "/");
  EXPECT_EQ(getsid(pair.attendant), pair.attendant);  // Has no terminal.
  kill(pair.parent, SIGKILL);
  WaitForEnd(pair.parent);
  WaitForEnd(pair.attendant);
}

TEST_F(MountAttendantTest, TellsWhyItCouldNotDoSomething) {
  MountAttendant attendant(kNowhere);
  try {
    attendant.Identify();
    FAIL() << "there is nothing at " << kNowhere.path;
  } catch (const IoError& error) {
    EXPECT_EQ(error.host_errno(), ENOENT);
    EXPECT_THAT(error.what(), testing::HasSubstr("/nowhere"));
  }
  EXPECT_FALSE(attendant.SetSize(1));
  EXPECT_FALSE(attendant.Sync());
  EXPECT_THROW(attendant.Detach(), IoError);
}

TEST_F(MountAttendantTest, OneThatIsGoneIsAnErrorAndNoHang) {
  MountAttendant attendant(kNowhere);
  kill(attendant.pid(), SIGKILL);
  EXPECT_THROW(attendant.Identify(), IoError);
  attendant.Log("nobody hears this");
}

// With a /dev of its own, where the test is the system log.
TEST_F(MountAttendantTest, WritesToTheSystemLog) {
  if (geteuid() != 0) {
    ASSERT_EQ(getenv("CI"), nullptr) << "another /dev needs root";
    GTEST_SKIP() << "another /dev needs root";
  }
  const ScratchFolder folder;
  fs::create_directory(folder / "dev");
  const int status = WaitForEnd(Fork([&] {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mknod((folder / "dev/null").c_str(), S_IFCHR | 0666, makedev(1, 3)) !=
            0 ||
        mount((folder / "dev").c_str(), "/dev", nullptr, MS_BIND, nullptr) !=
            0) {
      throw std::runtime_error(std::strerror(errno));
    }
    const int log = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, "/dev/log");
    if (bind(log, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      throw std::runtime_error(std::strerror(errno));
    }
    {
      MountAttendant attendant(kNowhere);
      attendant.Log("first %s line");
      ErrorLog(LogTarget::kSystemLog, attendant).Report("second", "\x1b[2J");
    }
    // Both were written when the attendant had ended.
    for (const char* expected : {"first %s line", "second: \\x1b[2J"}) {
      char text[512] = {};
      if (recv(log, text, sizeof text - 1, MSG_DONTWAIT) <= 0 ||
          std::strstr(text, expected) == nullptr) {
        throw std::runtime_error(std::string("got: ") + text);
      }
    }
    return 0;
  }));
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace pellucid::fuse
