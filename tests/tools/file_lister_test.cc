// What lists files, and what it may do: libtsk is expected to crash, to run on,
// and to be taken over.

#include "tools/file_lister.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>

#include "engine/file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid::cli {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

std::filesystem::path Program() {
  return std::filesystem::path(PELLUCID_PROGRAM).parent_path() /
         "../libexec/pellucid/list-files";
}

std::string TextOf(const std::filesystem::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The only child of a process.
pid_t ChildOf(pid_t parent) {
  pid_t child = -1;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string status = TextOf(entry.path() / "status");
    if (status.find(fmt::format("\nPPid:\t{}\n", parent)) !=
        std::string::npos) {
      EXPECT_EQ(child, -1);
      child = std::stoi(entry.path().filename());
    }
  }
  return child;
}

// The process that lists, while it waits for bytes.
pid_t Lister() { return ChildOf(ChildOf(getpid())); }

// A device that does something at the first read.
class WatchedDevice : public MemoryDevice {
 public:
  WatchedDevice(Bytes content, std::function<void()> watch)
      : MemoryDevice(std::move(content)), watch_(std::move(watch)) {}

  void Read(uint64_t offset, std::span<std::byte> out) override {
    if (watch_) std::exchange(watch_, nullptr)();
    MemoryDevice::Read(offset, out);
  }

 private:
  std::function<void()> watch_;
};

class FileListerTest : public testing::Test {
 protected:
  // An ext4 file system with 20 files in it.
  Bytes Ext4() {
    RunTool({"sh", "-c",
             "mkdir -p in; for i in $(seq 20); do echo >in/file$i; done\n"
             "truncate -s 4M ext4; mkfs.ext4 -q -F -d in ext4"},
            "", folder_.path());
    return ReadHostFile(folder_ / "ext4");
  }

  FileLister::Result List(FileLister& lister, BlockDevice& volume) {
    lines_.clear();
    return lister.List(volume, "/",
                       [&](std::string_view line) { lines_ += line; });
  }

  std::string Fls() {
    return RunTool({"fls", "-r", "-m", "/", "ext4"}, "", folder_.path());
  }

  ScratchFolder folder_;
  std::string lines_;
};

TEST_F(FileListerTest, WhoeverTakesItOverHasNoRights) {
  std::string status;
  std::string limits;
  std::set<std::string> open;
  WatchedDevice device(Ext4(), [&] {
    const std::filesystem::path process =
        fmt::format("/proc/{}", static_cast<int>(Lister()));
    status = TextOf(process / "status");
    limits = TextOf(process / "limits");
    for (const auto& fd : std::filesystem::directory_iterator(process / "fd")) {
      open.insert(std::filesystem::read_symlink(fd.path()).native().substr(
          0, strlen("/dev/null")));
    }
  });
  FileLister lister(Program(), "UTC", {});
  EXPECT_THAT(List(lister, device).error, IsEmpty());
  EXPECT_THAT(
      status,
      AllOf(HasSubstr("\nSeccomp:\t2\n"), HasSubstr("\nNoNewPrivs:\t1\n"),
            ContainsRegex("\nCapPrm:\t0+\n"), ContainsRegex("\nCapEff:\t0+\n"),
            HasSubstr("\nThreads:\t1\n")));
  EXPECT_THAT(limits, AllOf(ContainsRegex("Max cpu time +3600 +3601 "),
                            ContainsRegex("Max core file size +0 +0 "),
                            ContainsRegex("Max file size +0 +0 "),
                            ContainsRegex("Max address space +4294967296 ")));
  // The image is not among them.
  for (const std::string& file : open) {
    EXPECT_THAT(file, testing::AnyOf("/dev/null", StartsWith("socket:"),
                                     StartsWith("pipe:")));
  }
}

TEST_F(FileListerTest, ACrashCostsTheListOfItsVolumeAlone) {
  const Bytes content = Ext4();
  FileLister lister(Program(), "UTC", {});
  WatchedDevice crashing(content, [&] { kill(Lister(), SIGSEGV); });
  const FileLister::Result crashed = List(lister, crashing);
  EXPECT_THAT(crashed.error, HasSubstr("crashed (SIGSEGV)"));
  EXPECT_EQ(crashed.exit_code, ExitCode::kFailure);
  MemoryDevice device(content);
  const FileLister::Result result = List(lister, device);
  EXPECT_THAT(result.error, IsEmpty());
  EXPECT_EQ(result.exit_code, ExitCode::kOk);
  EXPECT_EQ(lines_, Fls());
}

// The program itself, by whatever may end it.
TEST_F(FileListerTest, WithoutItNothingIsListed) {
  const Bytes content = Ext4();
  FileLister lister(Program(), "UTC", {});
  WatchedDevice device(content, [&] { kill(ChildOf(getpid()), SIGKILL); });
  EXPECT_THAT(List(lister, device).error, HasSubstr("ended unexpectedly"));
  MemoryDevice other(content);
  EXPECT_THAT(List(lister, other).error, HasSubstr("ended unexpectedly"));
}

// FAT has to be read to its end for what no folder refers to.
TEST_F(FileListerTest, ProcessorTimeIsBounded) {
  RunTool({"sh", "-c", "truncate -s 64G fat; mkfs.vfat -F 32 fat"}, "",
          folder_.path());
  const auto volume =
      FileDevice::Open(folder_ / "fat", FileDevice::Sharing::kExclusive);
  FileLister lister(Program(), "UTC", {.cpu_seconds = 1});
  const FileLister::Result result = List(lister, *volume);
  EXPECT_EQ(result.type, "fat32");
  EXPECT_THAT(result.error, HasSubstr("more than 1 s of processor time"));
  EXPECT_EQ(result.exit_code, ExitCode::kFailure);
  EXPECT_THAT(lines_, HasSubstr("|/$MBR|"));
}

TEST_F(FileListerTest, MemoryIsBounded) {
  // A folder with more names than fit into what malloc(3) has at the start.
  RunTool({"sh", "-c",
           "mkdir in; cd in; seq 2000 | xargs touch; cd ..\n"
           "truncate -s 16M ext4; mkfs.ext4 -q -F -N 3000 -d in ext4"},
          "", folder_.path());
  MemoryDevice device(ReadHostFile(folder_ / "ext4"));
  FileLister enough(Program(), "UTC", {});
  EXPECT_THAT(List(enough, device).error, IsEmpty());
  EXPECT_EQ(lines_, Fls());
  // Less than the libraries take already.
  FileLister lister(Program(), "UTC", {.memory = uint64_t{16} << 20});
  EXPECT_THAT(List(lister, device).error, Not(IsEmpty()));
}

TEST_F(FileListerTest, EntriesAreBounded) {
  const Bytes content = Ext4();
  FileLister lister(Program(), "UTC", {.entries = 5});
  for (int i = 0; i < 3; ++i) {
    MemoryDevice device(content);
    const FileLister::Result result = List(lister, device);
    EXPECT_EQ(result.entries, 5u);
    EXPECT_EQ(std::ranges::count(lines_, '\n'), 5);
    EXPECT_EQ(result.error, "there are more than 5 entries");
    EXPECT_EQ(result.exit_code, ExitCode::kFailure);
  }
}

TEST_F(FileListerTest, WhatCannotBeReadIsTold) {
  MemoryDevice device(Ext4());
  FileLister lister(Program(), "UTC", {});
  device.FailReads(uint64_t{100} << 10, device.size());
  const FileLister::Result result = List(lister, device);
  EXPECT_EQ(result.type, "ext4");
  EXPECT_THAT(result.error, HasSubstr("injected fault"));
  EXPECT_EQ(result.exit_code, ExitCode::kIoError);
}

TEST_F(FileListerTest, AListThatIsGivenUpLeavesNoProcess) {
  pid_t program = -1;
  pid_t child = -1;
  {
    WatchedDevice device(Ext4(), [&] {
      program = ChildOf(getpid());
      child = ChildOf(program);
    });
    FileLister lister(Program(), "UTC", {});
    EXPECT_THROW(lister.List(device, "/",
                             [](std::string_view) {
                               throw std::runtime_error("disk full");
                             }),
                 std::runtime_error);
  }
  for (const pid_t pid : {program, child}) {
    ASSERT_GT(pid, 0);
    EXPECT_NE(kill(pid, 0), 0) << pid;
  }
}

// One that was taken over asks for what is none of its business and sends what
// would drive a terminal. MemoryDevice throws if it is asked for more than it
// has.
TEST_F(FileListerTest, NothingThatItSaysIsBelieved) {
  WriteHostFile(folder_ / "fake", std::string_view(R"(#!/usr/bin/python3
import socket, struct
control, data = socket.socket(fileno=3), socket.socket(fileno=4)
control.send(b"0.0")
while True:
    request = control.recv(1000)
    if not request: break
    if len(request) == 1: continue
    def message(kind, offset=0, length=0, text=b""):
        data.send(struct.pack("<IIQQ", kind, 0, offset, length) + text)
    for offset, length in [(1 << 60, 512), (2**64 - 512, 512), (0, 1 << 40),
                           (0, 65537), (4 << 20, 1), (2**64 - 1, 2)]:
        message(0, offset, length)
        assert data.recv(1 << 17) == struct.pack("<II", 0, 0)
    message(0, 0, 1024)
    assert data.recv(1 << 17) == struct.pack("<II", 1, 0) + bytes(1024)
    message(1, text=b"ext4\x1b[31m")
    message(77)
    data.send(b"short")
    message(3, text=b"0|/a\n\x1b|1|r|0|0|0|0|0|0|0")
    message(3, text=b"no line")
    message(3, text=b"0|/late|1|r|0|0|0|0|0|0|0")
    message(5)
    control.send(struct.pack("<i", 0))
)"));
  std::filesystem::permissions(folder_ / "fake",
                               std::filesystem::perms::owner_all);
  FileLister lister(folder_ / "fake", "UTC", {});
  for (int i = 0; i < 2; ++i) {
    MemoryDevice device(Ext4());
    const FileLister::Result result = List(lister, device);
    EXPECT_EQ(result.type, "ext4^[31m");
    EXPECT_THAT(result.error, HasSubstr("sent half a message"));
    EXPECT_EQ(result.exit_code, ExitCode::kFailure);
    EXPECT_EQ(lines_, "0|/a^^|1|r|0|0|0|0|0|0|0\n");
  }
}

TEST_F(FileListerTest, WhatDoesNotStartIsNamed) {
  const auto refusal = [](const std::filesystem::path& program) {
    try {
      FileLister lister(program, "UTC", {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(
      refusal("/bin/false"),
      AllOf(StartsWith("/bin/false: does not start"), HasSubstr("libtsk")));
  EXPECT_THAT(refusal(folder_ / "none"), HasSubstr("-DPELLUCID_TSK=ON"));
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("ermission denied"));
}

}  // namespace
}  // namespace pellucid::cli
