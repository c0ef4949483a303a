// The host's file system fills up under a mounted image: the writer is told,
// nothing that was synced suffers, and all goes on when there is room again.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr size_t kMiB = 1 << 20;
constexpr size_t kSize = 64 * kMiB;

class FullHostTest : public ProgramTest {
 protected:
  void SetUp() override {
    if (geteuid() != 0) {
      ASSERT_EQ(getenv("CI"), nullptr) << "a small file system needs root";
      GTEST_SKIP() << "a small file system needs root";
    }
    ASSERT_NO_FATAL_FAILURE(ProgramTest::SetUp());
    fs::create_directory(folder() / "small");
    ASSERT_EQ(
        mount("none", (folder() / "small").c_str(), "tmpfs", 0, "size=32m"), 0);
    MakeFile("key", "open sesame");
    RunTool(
        {PELLUCID_PROGRAM, "create", "--quiet", "--key-file", "key",
         "--pbkdf2-iterations", "1000", "small/image", std::to_string(kSize)},
        "", folder());
    // What can be deleted later.
    RunTool({"fallocate", "-l", "16M", "small/filler"}, "", folder());
    MountImage();
  }

  void MountImage(const std::string& option = "--cache=writeback") const {
    MustRun({"mount", "-o", "rw", option, "--key-file", "key", "small/image",
             "file"});
  }

  void TearDown() override {
    if (IsMounted(file())) Pellucid({"umount", "--lazy", "file"});
    umount2((folder() / "small").c_str(), MNT_DETACH);
    ProgramTest::TearDown();
  }

  // Writes to the model as well unless the write fails; its errno then.
  int Write(const OpenFile& to, size_t offset, size_t length, uint64_t seed) {
    const Bytes bytes = Noise(length, seed);
    void* memory = nullptr;
    EXPECT_EQ(posix_memalign(&memory, 4096, length), 0);
    const std::unique_ptr<void, void (*)(void*)> aligned(memory, &std::free);
    std::ranges::copy(bytes, static_cast<std::byte*>(memory));
    const ssize_t written =
        pwrite(to.fd(), memory, length, static_cast<off_t>(offset));
    if (written < 0) return errno;
    EXPECT_EQ(static_cast<size_t>(written), length);
    std::ranges::copy(bytes, model_.begin() + static_cast<ptrdiff_t>(offset));
    return 0;
  }

  void MakeRoom() const { fs::remove(folder() / "small" / "filler"); }

  // Ends the mount and asks QEMU.
  void ExpectModelInImage() const {
    MustRun({"umount", "file"});
    const std::vector<std::string> image = {
        "--object", "secret,id=s,file=key", "--image-opts",
        "driver=qcow2,file.filename=small/image,encrypt.format=luks,"
        "encrypt.key-secret=s"};
    std::vector<std::string> command = {"qemu-img", "check"};
    command.insert(command.end(), image.begin(), image.end());
    EXPECT_EQ(RunProgram(command, "", folder()).exit_code, 0);
    command = {"qemu-img", "convert", "-O", "raw"};
    command.insert(command.end(), image.begin(), image.end());
    command.push_back("plain");
    RunTool(command, "", folder());
    EXPECT_EQ(FirstDifference(ReadHostFile(folder() / "plain"), model_), "");
  }

  Bytes model_ = Bytes(kSize);
};

TEST_F(FullHostTest, DirectWriteIsToldAndGoesOnLater) {
  {
    const OpenFile direct(file(), O_RDWR | O_DIRECT);
    ASSERT_EQ(Write(direct, 0, 4 * kMiB, 1), 0);
    ASSERT_EQ(fsync(direct.fd()), 0);
    size_t offset = 8 * kMiB;
    int error = 0;
    while (error == 0 && offset < 40 * kMiB) {
      error = Write(direct, offset, kMiB, offset);
      if (error == 0) offset += kMiB;
    }
    ASSERT_EQ(error, ENOSPC) << "at " << offset;
    // What was there is still read.
    Bytes synced(4 * kMiB);
    ASSERT_EQ(pread(direct.fd(), synced.data(), synced.size(), 0),
              static_cast<ssize_t>(synced.size()));
    EXPECT_TRUE(std::equal(synced.begin(), synced.end(), model_.begin()));
    MakeRoom();
    EXPECT_EQ(Write(direct, offset, kMiB, 3), 0);
    EXPECT_EQ(fsync(direct.fd()), 0);
  }
  ExpectModelInImage();
}

TEST_F(FullHostTest, ScatteredWritesAreToldByFsyncAndKept) {
  {
    const OpenFile buffered(file(), O_RDWR);
    ASSERT_EQ(Write(buffered, 0, 4 * kMiB, 1), 0);
    ASSERT_EQ(fsync(buffered.fd()), 0);
    // Each takes a cluster of the host, far more than there is room for.
    for (size_t offset = 8 * kMiB; offset < 32 * kMiB; offset += 64 << 10) {
      ASSERT_EQ(Write(buffered, offset + 4096, 8192, offset), 0);
    }
    EXPECT_EQ(fsync(buffered.fd()), -1);
    EXPECT_EQ(errno, ENOSPC);
    EXPECT_EQ(fsync(buffered.fd()), -1) << "it was forgotten";
    EXPECT_EQ(errno, ENOSPC);
    MakeRoom();
    EXPECT_EQ(fsync(buffered.fd()), 0);
  }
  ExpectModelInImage();
}

TEST_F(FullHostTest, UnmountTellsWhatDoesNotFitAndLosesNothing) {
  {
    const OpenFile buffered(file(), O_RDWR);
    // Taken by the caches, but each takes a cluster of the host.
    for (size_t offset = 8 * kMiB; offset < 32 * kMiB; offset += 64 << 10) {
      ASSERT_EQ(Write(buffered, offset + 4096, 8192, offset), 0);
    }
  }
  for (int i = 0; i < 2; ++i) {
    const ProgramResult result = Pellucid({"umount", "file"});
    EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::kIoError));
    EXPECT_THAT(result.err, HasSubstr("No space left on device"));
    EXPECT_THAT(result.err, HasSubstr("--lazy"));
    ASSERT_TRUE(IsMounted(file()));
  }
  MakeRoom();
  ExpectModelInImage();
}

TEST_F(FullHostTest, SmallCacheTellsWhatItCannotKeep) {
  // The cache is far too small for what is written.
  MustRun({"umount", "file"});
  ASSERT_NO_FATAL_FAILURE(MountImage("--cache-size=1M"));
  {
    const OpenFile buffered(file(), O_RDWR);
    ASSERT_EQ(Write(buffered, 0, 4 * kMiB, 1), 0);
    ASSERT_EQ(fsync(buffered.fd()), 0);
    // Until the kernel refuses to take any more, or all is taken.
    const auto write_all = [&] {
      int error = 0;
      for (size_t offset = 8 * kMiB; offset < 32 * kMiB; offset += 64 << 10) {
        error = Write(buffered, offset + 4096, 8192, offset);
        if (error != 0) break;
      }
      return error;
    };
    EXPECT_THAT(write_all(), AnyOf(0, ENOSPC));
    EXPECT_EQ(fsync(buffered.fd()), -1);
    EXPECT_EQ(errno, ENOSPC);
    MakeRoom();
    fsync(buffered.fd());  // May tell of what happened meanwhile.
    EXPECT_EQ(write_all(), 0);
    EXPECT_EQ(fsync(buffered.fd()), 0);
  }
  ExpectModelInImage();
}

TEST_F(FullHostTest, SequentialWritesAreToldByFsyncAndCanBeRepeated) {
  {
    const OpenFile buffered(file(), O_RDWR);
    ASSERT_EQ(Write(buffered, 0, 4 * kMiB, 1), 0);
    ASSERT_EQ(fsync(buffered.fd()), 0);
    const auto write_all = [&] {
      for (size_t offset = 8 * kMiB; offset < 28 * kMiB; offset += kMiB) {
        ASSERT_EQ(Write(buffered, offset, kMiB, offset), 0);
      }
    };
    write_all();
    EXPECT_EQ(fsync(buffered.fd()), -1);
    EXPECT_EQ(errno, ENOSPC);
    MakeRoom();
    // As with any file system, the kernel keeps no pages that it could not
    // write.
    write_all();
    EXPECT_EQ(fsync(buffered.fd()), 0);
  }
  ExpectModelInImage();
}

}  // namespace
}  // namespace pellucid::fuse
