// What the subcommands can still do once they are confined, and that each of
// them is.

#include "tools/command_sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/keyctl.h>
#include <signal.h>
#include <sys/ioctl.h>
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
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/file_device.h"
#include "engine/new_file.h"
#include "fuse/confinement.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/traced_program_fixture.h"

namespace pellucid::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// The wait status of a child that exits with what `body` returns.
int StatusOf(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      _exit(body());
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}\n", error.what());
      _exit(99);
    }
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

// What opening `file` sets errno to; 0 if it can be opened.
int ErrorOfOpening(const fs::path& file, int flags) {
  const int fd = open(file.c_str(), flags | O_CLOEXEC, 0600);
  return fd < 0 ? errno : 0;
}

// The value of a field of /proc/.../status.
std::string StatusField(pid_t process, const std::string& name) {
  std::ifstream status(fmt::format("/proc/{}/status", process));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":\t")) return line.substr(name.size() + 2);
  }
  return "";
}

uint64_t EffectiveCapabilities() {
  return std::stoull(StatusField(getpid(), "CapEff"), nullptr, 16);
}

constexpr uint64_t Bit(int capability) { return uint64_t{1} << capability; }

constexpr uint64_t kCapabilitiesForFiles =
    Bit(CAP_CHOWN) | Bit(CAP_DAC_OVERRIDE) | Bit(CAP_DAC_READ_SEARCH) |
    Bit(CAP_FOWNER) | Bit(CAP_IPC_LOCK);

class CommandSandboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fuse::HasSandbox()) {
      GTEST_SKIP() << "a build with sanitizers has no sandbox";
    }
    for (const char* name : {"image", "other", ".hidden"}) {
      WriteHostFile(folder_ / name, "some text");
    }
    fs::create_directory(folder_ / "below");
    WriteHostFile(folder_ / "below/file", "some text");
  }

  // Whether opening files for writing can be refused by the kernel.
  static bool HasLandlock() {
    return syscall(SYS_landlock_create_ruleset, nullptr, 0,
                   LANDLOCK_CREATE_RULESET_VERSION) > 0;
  }

  // The wait status of a process that enters the sandbox, opens the image, and
  // then runs `body`.
  int StatusInSandbox(CommandSandbox& sandbox,
                      const std::function<int()>& body) const {
    return StatusOf([&] {
      sandbox.Enter();
      const auto image =
          FileDevice::Open(folder_ / "image", FileDevice::Sharing::kExclusive);
      return body();
    });
  }
  int StatusInSandbox(const std::function<int()>& body) const {
    CommandSandbox sandbox;
    return StatusInSandbox(sandbox, body);
  }

  // Expects a command that is told by `tell` what it may write to open `name`
  // of the folder for writing, or to be refused with `error`.
  void ExpectOpening(const std::function<void(CommandSandbox&)>& tell,
                     const std::string& name, int error) const {
    CommandSandbox sandbox;
    tell(sandbox);
    EXPECT_EQ(
        StatusInSandbox(
            sandbox,
            [&] { return ErrorOfOpening(folder_ / name, O_RDWR | O_CREAT); }),
        (HasLandlock() ? error : 0) << 8)
        << name;
  }

  const ScratchFolder folder_;
};

TEST_F(CommandSandboxTest, ForbiddenCallsEndTheProcess) {
  const auto expect_forbidden = [&](const char* what,
                                    const std::function<void()>& call) {
    SCOPED_TRACE(what);
    // At once, and no less when an image is open.
    for (const bool is_open : {false, true}) {
      const auto body = [&] {
        call();
        return 0;
      };
      const int status = is_open ? StatusInSandbox(body) : StatusOf([&] {
        CommandSandbox().Enter();
        return body();
      });
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
    }
  };
  expect_forbidden("socket", [] { socket(AF_INET, SOCK_STREAM, 0); });
  expect_forbidden("socket", [] { socket(AF_UNIX, SOCK_DGRAM, 0); });
  expect_forbidden("execve", [] {
    execl("/bin/true", "true", static_cast<char*>(nullptr));
  });
  expect_forbidden("fork", [] {
    if (syscall(SYS_fork) == 0) _exit(0);
  });
  expect_forbidden("clone", [] {
    if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0) _exit(0);
  });
  expect_forbidden("ptrace", [] { ptrace(PTRACE_TRACEME, 0, 0, 0); });
  expect_forbidden("kill", [] { kill(getppid(), 0); });
  expect_forbidden("mount", [] { mount("a", "/", "tmpfs", 0, nullptr); });
  expect_forbidden("umount2", [] { umount2("/", MNT_DETACH); });
  expect_forbidden("setuid", [] { syscall(SYS_setuid, 0); });
  expect_forbidden("bpf", [] { syscall(SYS_bpf, 0, nullptr, 0); });
  expect_forbidden("io_uring", [] { syscall(SYS_io_uring_setup, 1, nullptr); });
  expect_forbidden("perf",
                   [] { syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0); });
  expect_forbidden("module", [] { syscall(SYS_finit_module, -1, "", 0); });
  expect_forbidden("dumpable", [] { prctl(PR_SET_DUMPABLE, 1); });
  expect_forbidden("add_key", [] {
    syscall(SYS_add_key, "user", "a", "b", 1, KEY_SPEC_PROCESS_KEYRING);
  });
  expect_forbidden("keyctl", [] {
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr);
  });
  expect_forbidden("request_key with a program",
                   [] { syscall(SYS_request_key, "user", "a", "b", 0); });
  expect_forbidden("typing for the user", [] {
    char line[] = "x";
    ioctl(STDIN_FILENO, TIOCSTI, line);
  });
  expect_forbidden("truncating", [] { open("/nowhere/x", O_RDWR | O_TRUNC); });
  expect_forbidden("new code", [] {
    mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
         0);
  });
  expect_forbidden("removing", [] { unlink("/nowhere/file"); });
  expect_forbidden("renaming", [] { rename("/nowhere/a", "/nowhere/b"); });
  expect_forbidden("giving away", [] { (void)!fchown(STDIN_FILENO, 1, 1); });
  expect_forbidden("linking", [] { (void)!link("/nowhere/a", "/nowhere/b"); });
}

TEST_F(CommandSandboxTest, ThreadsWorkAndAreConfinedAsWell) {
  const int status = StatusInSandbox([&] {
    int result = 1;
    std::thread([&] { result = 0; }).join();
    if (result != 0) return 2;
    std::thread([&] {
      result = ErrorOfOpening(folder_ / "other", O_RDWR);
    }).join();
    if (result != (HasLandlock() ? EACCES : 0)) return 3;
    std::thread([] { socket(AF_INET, SOCK_STREAM, 0); }).join();
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
}

TEST_F(CommandSandboxTest, EverythingCanBeReadAndNothingWritten) {
  EXPECT_EQ(StatusInSandbox([&] {
              return ErrorOfOpening(folder_ / "other", O_RDONLY) +
                     ErrorOfOpening("/proc/self/maps", O_RDONLY) +
                     ErrorOfOpening("/", O_RDONLY | O_DIRECTORY);
            }),
            0);
  const auto nothing = [](CommandSandbox&) {};
  for (const char* name : {"image", "other", "below/file", "new"}) {
    ExpectOpening(nothing, name, EACCES);
  }
  if (!HasLandlock()) GTEST_SKIP() << "this kernel has no Landlock";
}

TEST_F(CommandSandboxTest, WhatIsChangedCanBeWrittenAndNothingBesideIt) {
  const auto tell = [&](CommandSandbox& sandbox) {
    sandbox.MayWrite(folder_ / "image");
  };
  ExpectOpening(tell, "image", 0);
  ExpectOpening(tell, "other", EACCES);
  ExpectOpening(tell, "new", EACCES);
}

TEST_F(CommandSandboxTest, DataFilesOfImagesCanBeWritten) {
  fs::create_symlink("../image", folder_ / "below/link");
  for (const char* name : {"image", "below/link"}) {
    const auto tell = [&](CommandSandbox& sandbox) {
      OpenOptions options;
      options.image = folder_ / name;
      sandbox.MayWriteImage(options);
    };
    ExpectOpening(tell, "image", 0);
    ExpectOpening(tell, "other", 0);  // Its name can be in the image.
    ExpectOpening(tell, ".hidden", EACCES);
    ExpectOpening(tell, "new", EACCES);
    ExpectOpening(tell, "below/file",
                  fs::path(name).has_parent_path() ? 0 : EACCES);
  }
}

// Through a link, into another folder.
TEST_F(CommandSandboxTest, FilesAreMadeAndReplacedWhereTheyWereNamed) {
  fs::create_symlink("below/file", folder_ / "link");
  for (const char* name : {"new", "other", "link"}) {
    CommandSandbox sandbox;
    sandbox.MayMake(folder_ / name);
    EXPECT_EQ(StatusInSandbox(sandbox,
                              [&] {
                                const Bytes text = Noise(100, 1);
                                {
                                  NewFile file(folder_ / name, true);
                                  file.device().Write(0, text);
                                  file.Keep();
                                }
                                // Not one that is kept.
                                NewFile another(folder_ / name, true);
                                return 0;
                              }),
              0);
    EXPECT_EQ(ReadHostFile(folder_ / name), Noise(100, 1)) << name;
  }
  ExpectOpening([&](auto& sandbox) { sandbox.MayMake(folder_ / "below/new"); },
                "other", EACCES);
}

// As `pellucid export IMAGE /dev/null` does, or to a pipe of the shell.
TEST_F(CommandSandboxTest, DevicesAndPipesCanBeWritten) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  for (const std::string& name :
       {std::string("/dev/null"), fmt::format("/dev/fd/{}", ends[1])}) {
    CommandSandbox sandbox;
    sandbox.MayMake(name);
    EXPECT_EQ(StatusInSandbox(sandbox,
                              [&] { return ErrorOfOpening(name, O_WRONLY); }),
              0)
        << name;
  }
  close(ends[0]);
  close(ends[1]);
}

TEST_F(CommandSandboxTest, TheTerminalCanBeAskedForAPassphrase) {
  EXPECT_EQ(StatusInSandbox([&] {
              const int error = ErrorOfOpening("/dev/tty", O_RDWR);
              return error == ENXIO ? 0 : error;  // The test may have none.
            }),
            0);
}

TEST_F(CommandSandboxTest, OnlyCapabilitiesForFilesAreLeft) {
  ASSERT_EQ(geteuid(), 0U) << "a test for root";
  EXPECT_EQ(StatusInSandbox([&] {
              return EffectiveCapabilities() == kCapabilitiesForFiles ? 0 : 1;
            }),
            0);
}

TEST_F(CommandSandboxTest, TheProgramThatKeepsAnImageLockedIsNamed) {
  const std::string image = folder_ / "image.qcow2";
  RunTool({"qemu-img", "create", "-f", "qcow2", image, "1M"});
  const BackgroundProgram qemu({"qemu-io", "-f", "qcow2", image}, "qemu-io>");
  EXPECT_THAT(RunProgram({PELLUCID_PROGRAM, "info", image}).err,
              HasSubstr("qemu-io (process"));
}

class ConfinedCommandsTest : public CommandSandboxTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(CommandSandboxTest::SetUp());
    if (IsSkipped()) return;
    ASSERT_EQ(geteuid(), 0U) << "capabilities are those of root";
    WriteHostFile(folder_ / "key", "open sesame");
    Pellucid({"create", "--key-file", Path("key"), "--pbkdf2-iterations",
              "1000", Path("disk"), "1M"});
    Pellucid({"export", "--key-file", Path("key"), "--manifest",
              Path("manifest"), Path("disk"), Path("plain")});
  }

  void TearDown() override {
    if (!device_.empty()) RunTool({"losetup", "--detach", device_});
  }

  std::string Path(const char* name) const { return folder_ / name; }

  static void Pellucid(std::vector<std::string> words) {
    words.insert(words.begin(), PELLUCID_PROGRAM);
    RunTool(words);
  }

  // A successful use of each subcommand that is to be confined.
  std::vector<std::vector<std::string>> Commands() const {
    const std::string disk = Path("disk");
    const std::string key = Path("key");
    return {
        {"info", disk},
        {"info", "--forensic", disk},
        {"map", "--svg", Path("svg"), disk},
        {"check", disk},
        {"check", "--repair", "all", disk},
        {"export", "--key-file", key, "--force", disk, Path("plain")},
        {"verify", "--image", "--key-file", key, Path("manifest"), disk},
        {"report", "--key-file", key, "--output", Path("page"), "--force",
         disk},
        {"import", "--key-file", key, Path("plain"), disk},
        {"create", "--key-file", key, "--pbkdf2-iterations", "1000", "--force",
         Path("made"), "1M"},
        {"resize", "--key-file", key, disk, "+1M"},
        {"snapshot", "list", disk},
        {"snapshot", "create", disk, "now"},
        {"key", "list", disk},
        {"key", "change", "--key-file", key, "--new-key-file", key,
         "--pbkdf2-iterations", "1000", disk},
        {"header", "backup", "--force", disk, Path("backup")},
        {"header", "restore", disk, Path("backup")},
    };
  }

  // Runs a command and tells the values of fields of its status at its end.
  std::vector<std::string> AtTheEnd(std::vector<std::string> words,
                                    const std::vector<std::string>& fields) {
    words.insert(words.begin(), PELLUCID_PROGRAM);
    std::vector<std::string> values;
    EXPECT_EQ(RunAndLook(words, folder_ / "output",
                         [&](pid_t process) {
                           for (const std::string& field : fields) {
                             values.push_back(StatusField(process, field));
                           }
                         }),
              0);
    return values;
  }

  std::string device_;  // A loop device; empty if there is none.
};

TEST_F(ConfinedCommandsTest, EachIsConfinedAtItsEnd) {
  std::set<std::string> seen = {"mount", "umount"};  // Of another kind.
  for (const std::vector<std::string>& words : Commands()) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    seen.insert(words[0]);
    EXPECT_THAT(AtTheEnd(words, {"Seccomp", "NoNewPrivs", "CapEff"}),
                testing::ElementsAre(
                    "2", "1", fmt::format("{:016x}", kCapabilitiesForFiles)));
  }
  std::istringstream lines(RunTool({PELLUCID_PROGRAM, "--complete", ""}));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(seen.contains(line.substr(0, line.find('\t')))) << line;
  }
}

TEST_F(ConfinedCommandsTest, PassphrasesComeFromTheKernelKeyring) {
  const std::string name = fmt::format("pellucid-sandbox-{}", getpid());
  ASSERT_GT(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr), 0);
  ASSERT_GT(syscall(SYS_add_key, "user", name.c_str(), "open sesame", 11,
                    KEY_SPEC_SESSION_KEYRING),
            0);
  Pellucid(
      {"export", "--keyring", name, "--force", Path("disk"), Path("plain")});
}

TEST_F(ConfinedCommandsTest, BlockDevicesAreReadAndWritten) {
  const std::string key = Path("key");
  fs::resize_file(folder_ / "manifest", 4 << 20);
  device_ = RunTool({"losetup", "--find", "--show", Path("manifest")});
  device_.pop_back();  // The end of the line.
  // Also where a hole is to become zeros.
  Pellucid({"export", "--key-file", key, "--force", Path("disk"), device_});
  Pellucid({"resize", "--key-file", key, Path("disk"), "4M"});
  Pellucid({"import", "--key-file", key, device_, Path("disk")});
}

TEST_F(ConfinedCommandsTest, NoSandboxKeepsAllRights) {
  for (std::vector<std::string> words : Commands()) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    words.insert(words.begin() + 1, "--no-sandbox");
    EXPECT_THAT(
        AtTheEnd(words, {"Seccomp", "NoNewPrivs", "CapEff"}),
        testing::ElementsAre("0", "0", StatusField(getpid(), "CapEff")));
  }
}

}  // namespace
}  // namespace pellucid::cli
