// A limit on the size of files (ulimit -f) that is below the size of the disk.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/mount_fixture.h"
#include "tests/fuse/program_fixture.h"
#include "tests/fuse/writable_model_device.h"

namespace pellucid::fuse {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 8 << 20;

class FileSizeLimitTest : public MountTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(MountTest::SetUp());
    set_before_mount([] {
      signal(SIGXFSZ, SIG_IGN);  // As the program does.
      const rlimit limit = {kSize / 2, kSize / 2};
      setrlimit(RLIMIT_FSIZE, &limit);
    });
  }
  bool TryMountDisk(MountpointKind kind) {
    auto device = std::make_unique<WritableModelDevice>(disk_);
    WritableDevice* const writable = device.get();
    return TryMount(MountedDevice(std::move(device), writable), kind, "rw");
  }

  SharedDisk disk_{kSize};
};

TEST_F(FileSizeLimitTest, IsNamedWhereItForbidsTheMount) {
  EXPECT_FALSE(TryMountDisk(MountpointKind::kFile));
  EXPECT_THAT(Log(), HasSubstr("8388608 bytes: File too large; raise the limit "
                               "on the size of files (ulimit -f)"));
}

TEST_F(FileSizeLimitTest, DoesNotMatterToADirectory) {
  ASSERT_TRUE(TryMountDisk(MountpointKind::kDirectory)) << Log();
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

// Under the limit an image of QEMU that grows while it is written.
class FileSizeLimitProgramTest : public ProgramTest {
 protected:
  static constexpr size_t kLimit = 4 << 20;

  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(ProgramTest::SetUp());
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "image", "64M"}, "",
            folder());
    const ProgramResult result = RunProgram(
        {"prlimit", "--fsize=" + std::to_string(kLimit), PELLUCID_PROGRAM,
         "mount", "-o", "rw", "image", "directory"},
        "", folder());
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }

  // The kernel's errno, 0 if all of it was written.
  static int Write(const OpenFile& to, const Bytes& bytes, size_t offset) {
    // Direct writes want aligned memory.
    void* memory = nullptr;
    EXPECT_EQ(posix_memalign(&memory, 4096, bytes.size()), 0);
    const std::unique_ptr<void, void (*)(void*)> aligned(memory, &std::free);
    std::ranges::copy(bytes, static_cast<std::byte*>(memory));
    const ssize_t written =
        pwrite(to.fd(), memory, bytes.size(), static_cast<off_t>(offset));
    return written < 0 ? errno : 0;
  }
  static Bytes Read(const OpenFile& from, size_t length) {
    Bytes bytes(length);
    EXPECT_EQ(pread(from.fd(), bytes.data(), length, 0),
              static_cast<ssize_t>(length));
    return bytes;
  }
};

TEST_F(FileSizeLimitProgramTest, DirectWriteFailsAndTheMountGoesOn) {
  constexpr size_t kPiece = 1 << 20;
  const Bytes first = Noise(kPiece, 1);
  {
    const OpenFile direct(disk(), O_RDWR | O_DIRECT);
    ASSERT_EQ(Write(direct, first, 0), 0);
    int error = 0;
    for (size_t i = 1; i < 2 * kLimit / kPiece && error == 0; ++i) {
      error = Write(direct, Noise(kPiece, i), i * kPiece);
    }
    EXPECT_EQ(error, EFBIG);
    EXPECT_EQ(fsync(direct.fd()), 0);
    const OpenFile buffered(disk(), O_RDONLY);
    EXPECT_EQ(FirstDifference(Read(buffered, kPiece), first), "");
  }
  MustRun({"umount", "directory"});
  RunTool({"qemu-img", "check", "-q", "image"}, "", folder());
}

TEST_F(FileSizeLimitProgramTest, BufferedWritesFailAtTheirSync) {
  const Bytes first = Noise(1 << 20, 1);
  {
    const OpenFile buffered(disk(), O_RDWR);
    ASSERT_EQ(Write(buffered, first, 0), 0);
    ASSERT_EQ(fsync(buffered.fd()), 0);
    ASSERT_EQ(Write(buffered, Noise(2 * kLimit, 2), 2 << 20), 0);
    EXPECT_EQ(fsync(buffered.fd()), -1);
    EXPECT_EQ(errno, EFBIG);
    EXPECT_EQ(FirstDifference(Read(buffered, first.size()), first), "");
  }
  const ProgramResult result = Pellucid({"umount", "--lazy", "directory"});
  EXPECT_FALSE(IsMounted(directory()));
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

}  // namespace
}  // namespace pellucid::fuse
