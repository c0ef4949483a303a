// What the serving process can still do once it is confined.

#include "fuse/sandbox.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "fuse/confinement.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/foreground_fixture.h"
#include "tests/fuse/mount_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The wait status of a process that enters the sandbox and then runs `body`.
int StatusInSandbox(const std::function<int()>& body) {
  return WaitForEnd(Fork([&] {
    EnterSandbox(SandboxLeaves::kServing);
    return body();
  }));
}

void ExpectForbidden(const char* what, const std::function<void()>& call) {
  SCOPED_TRACE(what);
  const int status = StatusInSandbox([&] {
    call();
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSYS);
}

// The lines of /proc/.../status by their names.
std::map<std::string, std::string> StatusFields(
    const std::filesystem::path& file) {
  std::map<std::string, std::string> fields;
  std::ifstream status(file);
  for (std::string line; std::getline(status, line);) {
    const size_t colon = line.find(":\t");
    if (colon != std::string::npos) {
      fields[line.substr(0, colon)] = line.substr(colon + 2);
    }
  }
  return fields;
}

class SandboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!HasSandbox()) GTEST_SKIP() << "a build with sanitizers has no sandbox";
  }
};

// As libfuse does if it meets an error that it does not expect.
TEST_F(SandboxTest, LibrariesMayComplain) {
  EXPECT_EQ(StatusInSandbox([] {
              errno = ECONNABORTED;
              perror("fuse: reading device");
              return 0;
            }),
            0);
}

TEST_F(SandboxTest, ForbiddenCallsEndTheProcess) {
  ExpectForbidden("socket", [] { socket(AF_INET, SOCK_STREAM, 0); });
  ExpectForbidden("socket", [] { socket(AF_UNIX, SOCK_DGRAM, 0); });
  ExpectForbidden("execve", [] {
    execl("/bin/true", "true", static_cast<char*>(nullptr));
  });
  ExpectForbidden("fork", [] {
    if (syscall(SYS_fork) == 0) _exit(0);
  });
  ExpectForbidden("vfork", [] {
    if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0) _exit(0);
  });
  ExpectForbidden("ptrace", [] { ptrace(PTRACE_TRACEME, 0, 0, 0); });
  ExpectForbidden("kill", [] { kill(getppid(), 0); });
  ExpectForbidden("tgkill",
                  [] { syscall(SYS_tgkill, getppid(), getppid(), 0); });
  ExpectForbidden("mount", [] { mount("a", "/", "tmpfs", 0, nullptr); });
  ExpectForbidden("umount2", [] { umount2("/", MNT_DETACH); });
  ExpectForbidden("setuid", [] { syscall(SYS_setuid, 0); });
  ExpectForbidden("capset", [] { syscall(SYS_capset, nullptr, nullptr); });
  ExpectForbidden("unlink", [] { unlink("/nowhere"); });
  ExpectForbidden("create", [] { open("/nowhere/file", O_RDWR | O_CREAT, 0); });
  ExpectForbidden("truncate", [] { open("/nowhere/file", O_RDWR | O_TRUNC); });
  ExpectForbidden("temporary", [] { open("/tmp", O_RDWR | O_TMPFILE, 0600); });
  ExpectForbidden("stat by name", [] {
    struct stat status;
    (void)!stat("/etc/passwd", &status);
  });
  ExpectForbidden("new code", [] {
    mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
         0);
  });
  ExpectForbidden("dumpable", [] { prctl(PR_SET_DUMPABLE, 1); });
  ExpectForbidden("io_uring", [] { syscall(SYS_io_uring_setup, 1, nullptr); });
  // Of another architecture: as i386 does it.
  ExpectForbidden("x32", [] { syscall(0x40000000 | SYS_getpid); });
}

TEST_F(SandboxTest, NoProcessCanBeMadeWhereFlagsCannotBeSeen) {
  const int status = StatusInSandbox([] {
    return syscall(SYS_clone3, nullptr, 0) == -1 && errno == ENOSYS ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(SandboxTest, ThreadsAreConfinedAsWell) {
  const int status = StatusInSandbox([] {
    int result = 1;
    std::thread([&] { result = 0; }).join();
    if (result != 0) return result;
    std::thread([] { socket(AF_INET, SOCK_STREAM, 0); }).join();
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
}

TEST_F(SandboxTest, OpenFilesStayUsable) {
  const ScratchFolder folder;
  const int status = WaitForEnd(Fork([&] {
    const int fd =
        open((folder / "file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EnterSandbox(SandboxLeaves::kServing);
    char text[4] = {};
    const bool done =
        pwrite(fd, "text", 4, 100) == 4 && pread(fd, text, 4, 100) == 4 &&
        sync_file_range(fd, 0, 4096, SYNC_FILE_RANGE_WRITE) == 0 &&
        fdatasync(fd) == 0 && fallocate(fd, 0, 0, 4096) == 0 &&
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) ==
            0 &&
        ftruncate(fd, 8192) == 0 && lseek(fd, 0, SEEK_END) == 8192;
    return done ? 0 : 1;
  }));
  EXPECT_EQ(status, 0);
  EXPECT_EQ(std::filesystem::file_size(folder / "file"), 8192U);
}

TEST_F(SandboxTest, NoOtherFileCanBeOpenedWhereTheKernelHasLandlock) {
  const bool has_landlock = syscall(SYS_landlock_create_ruleset, nullptr, 0,
                                    LANDLOCK_CREATE_RULESET_VERSION) > 0;
  const auto error_of = [](const char* file, int flags) {
    return StatusInSandbox(
        [&] { return open(file, flags | O_CLOEXEC) < 0 ? errno : 0; });
  };
  const int refused = has_landlock ? EACCES << 8 : 0;
  EXPECT_EQ(error_of("/etc/passwd", O_RDONLY), refused);
  EXPECT_EQ(error_of("/proc/self/maps", O_RDONLY), refused);
  EXPECT_EQ(error_of("/dev/zero", O_RDWR), refused);
  EXPECT_EQ(error_of("/", O_RDONLY | O_DIRECTORY), refused);
  EXPECT_EQ(error_of("/dev/null", O_RDWR), 0);
  EXPECT_EQ(error_of("/dev/fuse", O_RDWR), 0);
  if (!has_landlock) GTEST_SKIP() << "this kernel has no Landlock";
}

TEST_F(SandboxTest, WhereNamesAreLookedAtFilesCanStillNotBeOpened) {
  const bool has_landlock = syscall(SYS_landlock_create_ruleset, nullptr, 0,
                                    LANDLOCK_CREATE_RULESET_VERSION) > 0;
  const int status = WaitForEnd(Fork([&] {
    EnterSandbox(SandboxLeaves::kLookingAtNames);
    struct stat found;
    if (stat("/etc/passwd", &found) != 0) return 1;
    const bool opened = open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0;
    return opened == has_landlock ? 2 : 0;
  }));
  EXPECT_EQ(status, 0);
}

class SandboxedProgramTest : public ProgramTest {
 protected:
  void SetUp() override {
    if (!HasSandbox()) GTEST_SKIP() << "a build with sanitizers has no sandbox";
    ProgramTest::SetUp();
    MakeFile("image", std::string(1 << 20, 'i'));
  }

  // The values that `field` has in the threads of `process`.
  static std::set<std::string> InAllThreads(pid_t process,
                                            const std::string& field) {
    std::set<std::string> values;
    const auto tasks =
        std::filesystem::path("/proc") / std::to_string(process) / "task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
      values.insert(StatusFields(task.path() / "status").at(field));
    }
    return values;
  }
};

TEST_F(SandboxedProgramTest, EveryThreadOfAMountHasGivenUpItsRights) {
  ForegroundMount mount({"mount", (folder() / "image").native()}, file(),
                        folder() / "log");
  // Threads for requests, the cache, the times and the size on disk.
  RunTool({"dd", "if=/dev/zero", "of=" + file().native(), "bs=64k", "count=8",
           "conv=notrunc,fsync"});
  for (const char* field : {"CapEff", "CapPrm", "CapInh", "CapAmb"}) {
    EXPECT_THAT(InAllThreads(mount.pid(), field),
                ElementsAre("0000000000000000"))
        << field;
  }
  EXPECT_THAT(InAllThreads(mount.pid(), "NoNewPrivs"), ElementsAre("1"));
  EXPECT_THAT(InAllThreads(mount.pid(), "Seccomp"), ElementsAre("2"));
  EXPECT_EQ(mount.End(SIGTERM), 0);
}

// It looks at its files again at the end, also in folders that root alone may
// look into by a capability.
TEST_F(SandboxedProgramTest, AForensicMountIsConfinedAndSeesItsFilesAtTheEnd) {
  const std::filesystem::path closed = folder() / "closed";
  std::filesystem::create_directory(closed);
  std::filesystem::rename(folder() / "image", closed / "image");
  ASSERT_EQ(chmod(closed.c_str(), 0700), 0);
  ASSERT_EQ(chown(closed.c_str(), 65534, 65534), 0) << "needs root";
  const auto mount = [&] {
    return std::make_unique<ForegroundMount>(
        std::vector<std::string>{"mount", "--forensic", "--evidence-hash",
                                 closed / "image"},
        file(), folder() / "log");
  };
  const auto confined = mount();
  ReadHostFile(file());  // It serves, and so is confined.
  EXPECT_THAT(InAllThreads(confined->pid(), "Seccomp"), ElementsAre("2"));
  EXPECT_THAT(InAllThreads(confined->pid(), "CapEff"),
              ElementsAre("0000000000000004"));  // CAP_DAC_READ_SEARCH
  EXPECT_EQ(confined->End(SIGTERM), 0);
  // Another file of the same bytes takes its place.
  const auto deceived = mount();
  std::filesystem::rename(closed / "image", closed / "first");
  std::filesystem::copy_file(closed / "first", closed / "image");
  EXPECT_EQ(WEXITSTATUS(deceived->End(SIGTERM)), 1);
}

TEST_F(SandboxedProgramTest, NoSandboxKeepsThemAll) {
  ForegroundMount mount(
      {"mount", "--no-sandbox", (folder() / "image").native()}, file(),
      folder() / "log");
  EXPECT_THAT(InAllThreads(mount.pid(), "Seccomp"), ElementsAre("0"));
  EXPECT_THAT(InAllThreads(mount.pid(), "CapEff"),
              ElementsAre(StatusFields("/proc/self/status").at("CapEff")));
  EXPECT_EQ(mount.End(SIGTERM), 0);
}

}  // namespace
}  // namespace pellucid::fuse
