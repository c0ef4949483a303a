// What happens when the device fails, when the mountpoint is no good, and when
// the server is told to end.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "fuse/mountpoint.h"
#include "tests/fuse/model_device.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr uint64_t kSize = 8 << 20;
constexpr ByteRange kBad = {3'000'000, 3'000'001};

struct DeviceFailure {
  const char* name;
  void (*fail)();
  int expected_errno;
};

class DeviceFailureTest : public MountTest,
                          public ::testing::WithParamInterface<DeviceFailure> {
};

TEST_P(DeviceFailureTest, IsReportedAtItsPlaceAndNowhereElse) {
  auto device = std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{});
  const ModelDevice model(kSize, {});
  device->FailIn(kBad, GetParam().fail);
  ASSERT_NO_FATAL_FAILURE(Mount(std::move(device), MountpointKind::kFile));
  for (const int flags : {O_RDONLY, O_RDONLY | O_DIRECT}) {
    const OpenFile file(disk(), flags);
    ASSERT_GE(file.fd(), 0);
    alignas(4096) std::byte page[4096];
    for (uint64_t offset = 0; offset < kSize; offset += sizeof page) {
      errno = 0;
      const ssize_t length =
          pread(file.fd(), page, sizeof page, static_cast<off_t>(offset));
      if (kBad.begin >= offset && kBad.begin < offset + sizeof page) {
        EXPECT_EQ(length, -1);
        // Some kernels know only one way in which the page cache fails.
        EXPECT_TRUE(errno == GetParam().expected_errno ||
                    (errno == EIO && flags == O_RDONLY))
            << errno;
      } else {
        ASSERT_EQ(length, static_cast<ssize_t>(sizeof page)) << offset;
        ASSERT_EQ(page[17], model.ByteAt(offset + 17)) << offset;
      }
    }
  }
  EXPECT_EQ(EndByUnmount(), 0);
  EXPECT_THAT(Log(), HasSubstr("read of "));
  EXPECT_THAT(Log(), HasSubstr(" bytes at offset "));
}

INSTANTIATE_TEST_SUITE_P(
    , DeviceFailureTest,
    ::testing::Values(
        DeviceFailure{"Corrupt",
                      [] { throw CorruptImage("x: L2 table is damaged"); },
                      EIO},
        DeviceFailure{"Host", [] { throw IoError(ENXIO, "x: gone"); }, ENXIO},
        DeviceFailure{"HostWithErrnoOfOurs",
                      [] { throw IoError(ENOSYS, "x: odd"); }, EIO},
        DeviceFailure{"Memory", [] { throw std::bad_alloc(); }, ENOMEM},
        DeviceFailure{"Bug", [] { throw std::logic_error("bug"); }, EIO},
        DeviceFailure{"Alien", [] { throw 42; }, EIO}),
    [](const auto& param) { return std::string(param.param.name); });

class BrokenDeviceTest : public MountTest {};

TEST_F(BrokenDeviceTest, OneCauseIsToldOnce) {
  auto device = std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{});
  device->FailIn({0, kSize}, [] { throw CorruptImage("x: damaged"); });
  ASSERT_NO_FATAL_FAILURE(Mount(std::move(device), MountpointKind::kFile));
  {
    const OpenFile file(disk(), O_RDONLY);
    char page[4096];
    for (off_t offset = 0; offset < 100 * 4096; offset += 4096) {
      EXPECT_EQ(pread(file.fd(), page, sizeof page, offset), -1);
    }
    // The extents of a damaged image are no reason not to show its size.
    EXPECT_EQ(fs::file_size(disk()), kSize);
    errno = 0;
    EXPECT_EQ(lseek(file.fd(), 0, SEEK_HOLE), -1);
    EXPECT_EQ(errno, EIO);
  }
  EXPECT_EQ(EndByUnmount(), 0);
  const std::string log = Log();
  const size_t first = log.find("x: damaged");
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(log.find("x: damaged", first + 1), std::string::npos) << log;
}

TEST_F(BrokenDeviceTest, FloodOfCausesIsCutOff) {
  static int number = 0;
  auto device = std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{});
  device->FailIn({0, kSize}, [] {
    throw CorruptImage("x: cause " + std::to_string(__atomic_add_fetch(
                                         &number, 1, __ATOMIC_RELAXED)));
  });
  ASSERT_NO_FATAL_FAILURE(Mount(std::move(device), MountpointKind::kFile));
  {
    const OpenFile file(disk(), O_RDONLY);
    char page[4096];
    for (off_t offset = 0; offset < 500 * 4096; offset += 4096) {
      EXPECT_EQ(pread(file.fd(), page, sizeof page, offset), -1);
    }
  }
  EXPECT_EQ(EndByUnmount(), 0);
  const std::string log = Log();
  EXPECT_LT(std::count(log.begin(), log.end(), '\n'), 50) << log;
  EXPECT_THAT(log, HasSubstr("left out"));
}

class EndTest : public MountTest, public ::testing::WithParamInterface<int> {
 protected:
  void MountSmallDevice(const std::string& options = "ro") {
    ASSERT_NO_FATAL_FAILURE(
        Mount(std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{}),
              MountpointKind::kFile, options));
  }
};

TEST_P(EndTest, SignalUnmountsWhileAFileIsOpen) {
  MountSmallDevice();
  const OpenFile file(disk(), O_RDONLY);
  char byte = 0;
  ASSERT_EQ(pread(file.fd(), &byte, 1, 0), 1);
  EXPECT_EQ(EndServer(GetParam()), 0) << Log();
  EXPECT_FALSE(IsMounted(mountpoint()));
  EXPECT_EQ(pread(file.fd(), &byte, 1, kSize - 1), -1);
  EXPECT_EQ(Log(), "");
}

TEST_P(EndTest, SignalUnmountsAnIdleServerEveryTime) {
  // A lost wake-up would show as a server that stays.
  for (int round = 0; round < 30; ++round) {
    ASSERT_NO_FATAL_FAILURE(MountSmallDevice());
    ASSERT_EQ(EndServer(GetParam()), 0) << Log();
    ASSERT_FALSE(IsMounted(mountpoint()));
  }
}

TEST_P(EndTest, SignalEndsAWalkOverEndlessExtents) {
  // Tiny extents: the walk would take hours.
  class Crumbs : public ModelDevice {
   public:
    Crumbs() : ModelDevice(uint64_t{1} << 50, {}) {}
    Extent ExtentAt(uint64_t, uint64_t) override { return {1, false}; }
  };
  ASSERT_NO_FATAL_FAILURE(
      Mount(std::make_unique<Crumbs>(), MountpointKind::kFile));
  struct stat status = {};
  ASSERT_EQ(stat(disk().c_str(), &status), 0);
  // Not counted to the end, so the image's own figure stands in.
  EXPECT_EQ(status.st_blocks, image().st_blocks);
  int seek_errno = 0;
  std::thread seeker([&] {
    const OpenFile file(disk(), O_RDONLY);
    if (lseek(file.fd(), 0, SEEK_HOLE) < 0) seek_errno = errno;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(EndServer(GetParam()), 0) << Log();
  seeker.join();
  EXPECT_NE(seek_errno, 0);
}

INSTANTIATE_TEST_SUITE_P(, EndTest, ::testing::Values(SIGTERM, SIGINT, SIGHUP),
                         [](const auto& param) {
                           return std::string("SIG") +
                                  sigabbrev_np(param.param);
                         });

TEST_F(EndTest, SeekThatIsInterruptedGivesUp) {
  class Crumbs : public ModelDevice {
   public:
    Crumbs() : ModelDevice(uint64_t{1} << 50, {}) {}
    Extent ExtentAt(uint64_t, uint64_t) override { return {1, false}; }
  };
  ASSERT_NO_FATAL_FAILURE(
      Mount(std::make_unique<Crumbs>(), MountpointKind::kFile));
  const pid_t seeker = Fork([&] {
    const OpenFile file(disk(), O_RDONLY);
    lseek(file.fd(), 0, SEEK_HOLE);
    return 0;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  kill(seeker, SIGTERM);
  const int status = WaitForEnd(seeker);
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
  EXPECT_EQ(EndServer(SIGTERM), 0) << Log();
}

TEST_F(EndTest, IgnoredHangUpStaysIgnored) {
  set_before_mount([] { signal(SIGHUP, SIG_IGN); });
  MountSmallDevice();
  kill(server(), SIGHUP);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(fs::file_size(disk()), kSize);
  EXPECT_EQ(EndServer(SIGTERM), 0) << Log();
}

class MountpointTest : public MountTest {
 protected:
  // What the user is told of `mountpoint`.
  std::string ErrorFor(const fs::path& mountpoint) {
    try {
      CheckMountpoint(mountpoint, {folder() / "image"});
    } catch (const UsageError& error) {
      return error.what();
    }
    return "no UsageError";
  }
};

TEST_F(MountpointTest, FileAndDirectoryAreTakenWithLinksResolved) {
  fs::create_symlink(folder() / "file", folder() / "link");
  const Mountpoint file = CheckMountpoint(folder() / "link", {"image"});
  EXPECT_EQ(file.path, folder() / "file");
  EXPECT_EQ(file.kind, MountpointKind::kFile);
  const Mountpoint directory =
      CheckMountpoint(folder() / "directory" / "", {"image"});
  EXPECT_EQ(directory.path, folder() / "directory");
  EXPECT_EQ(directory.kind, MountpointKind::kDirectory);
}

TEST_F(MountpointTest, MissingOneIsNamedWithTheRemedy) {
  const fs::path path = folder() / "none";
  EXPECT_THAT(ErrorFor(path), HasSubstr("mkdir " + path.string()));
  EXPECT_THAT(ErrorFor(path), HasSubstr("touch " + path.string()));
  EXPECT_THAT(ErrorFor(""), HasSubstr("empty"));
}

TEST_F(MountpointTest, NeitherFileNorDirectoryIsRefused) {
  ASSERT_EQ(mkfifo((folder() / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(ErrorFor(folder() / "fifo"), HasSubstr("regular file"));
  EXPECT_THAT(ErrorFor("/dev/null"), HasSubstr("/dev/null: "));
}

TEST_F(MountpointTest, ImageItselfIsRefused) {
  EXPECT_THAT(ErrorFor(folder() / "image"), HasSubstr("its own mountpoint"));
  fs::create_hard_link(folder() / "image", folder() / "second");
  EXPECT_THAT(ErrorFor(folder() / "second"), HasSubstr("its own mountpoint"));
}

TEST_F(MountpointTest, SecondMountAtOnePlaceIsRefused) {
  ASSERT_NO_FATAL_FAILURE(
      Mount(std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{}),
            MountpointKind::kDirectory, "fsname=first.img"));
  EXPECT_THAT(ErrorFor(mountpoint()), HasSubstr("first.img"));
  EXPECT_THAT(ErrorFor(mountpoint()), HasSubstr("pellucid umount"));
  EXPECT_EQ(EndByUnmount(), 0);
}

TEST_F(MountpointTest, MountWhoseServerDiedIsNamed) {
  ASSERT_NO_FATAL_FAILURE(
      Mount(std::make_unique<ModelDevice>(kSize, std::vector<ByteRange>{}),
            MountpointKind::kDirectory));
  EXPECT_TRUE(WIFSIGNALED(EndServer(SIGKILL)));
  EXPECT_THAT(ErrorFor(mountpoint()), HasSubstr("unmount it first"));
  ASSERT_TRUE(IsMounted(mountpoint()));
  EXPECT_EQ(umount2(mountpoint().c_str(), 0), 0);
}

}  // namespace
}  // namespace pellucid::fuse
