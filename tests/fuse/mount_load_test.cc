// Mounts under load: many processes that read and write at the same time and
// check what they read, opening and closing without end, mounting and
// unmounting without end, and a mount that is taken away while it is used. How
// long and how often, the environment can say: PELLUCID_LOAD_SECONDS (of fio),
// PELLUCID_LOAD_MOUNTS.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/foreground_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

int FromEnvironment(const char* name, int otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoi(value);
}

size_t EntriesIn(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), {}));
}

// Processes that run the program on an image of `folder`.
std::set<std::string> ServersOf(const fs::path& folder) {
  std::set<std::string> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "cmdline", std::ios::binary);
    const std::string words(std::istreambuf_iterator<char>(file), {});
    if (words.starts_with(PELLUCID_PROGRAM) &&
        words.find(folder.native()) != std::string::npos) {
      found.insert(entry.path().filename());
    }
  }
  return found;
}

class MountLoadTest : public ProgramTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(ProgramTest::SetUp());
    MakeFile("key", "open sesame");
    RunTool({PELLUCID_PROGRAM, "create", "--quiet", "--key-file", "key",
             "--pbkdf2-iterations", "1000", image(), "256M"},
            "", folder());
  }
  void TearDown() override {
    umount2(file().c_str(), MNT_DETACH);
    ProgramTest::TearDown();
  }

  std::string image() const { return folder() / "image"; }
  // Returns when the file can be used, which is a moment after it is there.
  std::unique_ptr<ForegroundMount> MountInForeground() const {
    auto mount =
        std::make_unique<ForegroundMount>(Mounting(), file(), folder() / "log");
    for (int i = 0; i < 5000 && fs::file_size(file()) == 0; ++i) usleep(2'000);
    return mount;
  }
  std::vector<std::string> Mounting() const {
    return {"mount", "-o", "rw", "--key-file", folder() / "key", image()};
  }
  // Nothing is wrong with the image, and nobody holds it any more.
  void ExpectWhole() const {
    for (int i = 0; i < 5000 && !ServersOf(folder()).empty(); ++i) {
      usleep(2'000);
    }
    EXPECT_THAT(ServersOf(folder()), testing::IsEmpty());
    const ProgramResult result = RunProgram(
        {"qemu-img", "check", "--object",
         "secret,id=s,file=" + (folder() / "key").native(), "--image-opts",
         "driver=qcow2,file.filename=" + image() +
             ",encrypt.format=luks,encrypt.key-secret=s"});
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  }
};

TEST_F(MountLoadTest, ManyProcessesReadWhatTheyHaveWritten) {
  const auto mount = MountInForeground();
  // 64 processes, each in 4 MiB of its own; every block has its checksum in
  // it. Blocks of one size, for fio mistakes ones that overlap for errors.
  const std::string kinds =
      "[pages]\nnumjobs=32\nbs=4k\noffset=0\n"
      "[cut]\nnumjobs=16\nbs=1536\noffset=128m\n"
      "[direct]\nnumjobs=16\nbs=16k\ndirect=1\noffset=192m\n";
  MakeFile("jobs",
           fmt::format("[global]\nfilename={}\nrw=randrw\nsize=4m\n"
                       "offset_increment=4m\nioengine=psync\n"
                       "verify=crc32c\nverify_fatal=1\n"
                       "verify_backlog=64\nend_fsync=1\n"
                       "allow_file_create=0\ntime_based=1\n"
                       "runtime={}\n{}",
                       file().native(),
                       FromEnvironment("PELLUCID_LOAD_SECONDS", 5), kinds));
  const ProgramResult result =
      RunProgram({"fio", "--output=fio.log", "jobs"}, "", folder());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(mount->End(SIGTERM), 0);
  ExpectWhole();
}

TEST_F(MountLoadTest, OpeningAndClosingLeavesNothingOpen) {
  const auto mount = MountInForeground();
  RunTool({"dd", "if=/dev/zero", "of=" + file().native(), "bs=1M", "count=8",
           "conv=notrunc,fsync", "status=none"});
  const fs::path process = fs::path("/proc") / std::to_string(mount->pid());
  const auto storm = [&](int rounds) {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 8; ++thread) {
      threads.emplace_back([&, thread] {
        for (int i = 0; i < rounds; ++i) {
          const int fd = open(file().c_str(),
                              (i % 2 == 0 ? O_RDWR : O_RDONLY) | O_CLOEXEC);
          char byte = 'x';
          if (i % 2 == 0) {
            EXPECT_EQ(pwrite(fd, &byte, 1, thread * 4096 + i), 1);
          } else {
            EXPECT_EQ(pread(fd, &byte, 1, thread * 4096 + i), 1);
          }
          EXPECT_EQ(close(fd), 0);
        }
      });
    }
  };
  storm(50);
  const size_t descriptors = EntriesIn(process / "fd");
  const size_t threads = EntriesIn(process / "task");
  storm(500);
  EXPECT_LE(EntriesIn(process / "fd"), descriptors);
  // No more than serve at most.
  EXPECT_LE(EntriesIn(process / "task"), threads + 4);
  EXPECT_EQ(mount->End(SIGTERM), 0);
  ExpectWhole();
}

TEST_F(MountLoadTest, MountingAndUnmountingLeavesNothingBehind) {
  const int rounds = FromEnvironment("PELLUCID_LOAD_MOUNTS", 25);
  for (int i = 0; i < rounds; ++i) {
    SCOPED_TRACE(i);
    std::vector<std::string> mount = Mounting();
    mount.push_back(i % 2 == 0 ? "file" : "directory");
    // Locked by nobody: the mount before has let go of the image.
    MustRun(mount);
    const fs::path shown = i % 2 == 0 ? file() : disk();
    const OpenFile plain(shown, O_RDWR);
    const std::string text = fmt::format("round {:010}", i);
    ASSERT_EQ(pwrite(plain.fd(), text.data(), text.size(), 4096),
              static_cast<ssize_t>(text.size()));
    std::string before(text.size(), ' ');
    ASSERT_EQ(pread(plain.fd(), before.data(), before.size(), 8192),
              static_cast<ssize_t>(before.size()));
    if (i > 0) {
      EXPECT_EQ(before, fmt::format("round {:010}", i - 1));
    }
    ASSERT_EQ(pwrite(plain.fd(), text.data(), text.size(), 8192),
              static_cast<ssize_t>(text.size()));
    close(plain.fd());
    ASSERT_EQ(ServersOf(folder()).size(), 2U);  // It, and its attendant.
    MustRun({"umount", mount.back()});
    ASSERT_THAT(ServersOf(folder()), testing::IsEmpty());
  }
  ExpectWhole();
}

// What a mount is taken away under: writers that never stop.
class TakenAwayTest : public MountLoadTest,
                      public ::testing::WithParamInterface<const char*> {};

TEST_P(TakenAwayTest, WritersGetErrorsAndTheImageIsWhole) {
  const auto mount = MountInForeground();
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::atomic<uint64_t> written = 0;
  {
    std::vector<std::jthread> writers;
    for (int writer = 0; writer < 8; ++writer) {
      writers.emplace_back([&, writer] {
        const OpenFile plain(file(), O_RDWR);
        Bytes block = Noise(65536, static_cast<uint64_t>(writer));
        Bytes back(block.size());
        const auto at = static_cast<off_t>(writer) << 24;
        for (int i = 0; !stop; ++i) {
          block[0] = static_cast<std::byte>(i);
          const auto size = static_cast<ssize_t>(block.size());
          if (pwrite(plain.fd(), block.data(), block.size(),
                     at + i % 100 * size) != size ||
              pread(plain.fd(), back.data(), back.size(),
                    at + i % 100 * size) != size) {
            return;  // The mount has ended.
          }
          if (back != block) ++wrong;
          ++written;
        }
      });
    }
    while (written < 200) usleep(1'000);
    const std::string way = GetParam();
    if (way == "umount -l") {
      RunTool({"umount", "-l", file()});
    } else if (way == "fusermount3 -uz") {
      RunTool({"fusermount3", "-u", "-z", file()});
    } else if (way == "fusermount3 -u") {
      // In use: refused, and nothing happens.
      EXPECT_NE(RunProgram({"fusermount3", "-u", file()}).exit_code, 0);
      const uint64_t until = written + 200;
      while (written < until) usleep(1'000);
      EXPECT_TRUE(IsMounted(file()));
    }
    // Those who have it open go on.
    const uint64_t until = written + 200;
    while (written < until) usleep(1'000);
    if (way == "signal")
      kill(mount->pid(), SIGTERM);
    else
      stop = true;
  }
  EXPECT_EQ(wrong, 0);
  if (IsMounted(file())) umount2(file().c_str(), 0);
  EXPECT_EQ(mount->Await(), 0);
  EXPECT_FALSE(IsMounted(file()));
  ExpectWhole();
}

INSTANTIATE_TEST_SUITE_P(Ways, TakenAwayTest,
                         ::testing::Values("umount -l", "fusermount3 -uz",
                                           "fusermount3 -u", "signal"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase_if(name, [](char c) {
                             return c == ' ' || c == '-';
                           });
                           return name;
                         });

}  // namespace
}  // namespace pellucid::fuse
