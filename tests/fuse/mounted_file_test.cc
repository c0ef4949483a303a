// What programs see of a mounted device.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "fuse/kernel_limits.h"
#include "tests/fuse/model_device.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;

// Odd on purpose: ends within a block, within a page and within a request.
constexpr uint64_t kSize = 40'000'123;
const std::vector<ByteRange> kHoles = {{0, 4096},
                                       {1'000'001, 1'000'002},
                                       {9'000'000, 20'000'000},
                                       {39'000'000, kSize}};

std::unique_ptr<ModelDevice> MakeDevice() {
  return std::make_unique<ModelDevice>(kSize, kHoles);
}

// The offset of the first byte of `bytes`, which were read at `offset`, that
// differs from the model; -1 if all are right.
int64_t FirstDifference(const ModelDevice& model, uint64_t offset,
                        std::span<const std::byte> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != model.ByteAt(offset + i)) {
      return static_cast<int64_t>(offset + i);
    }
  }
  return -1;
}

class MountedFileTest : public MountTest,
                        public ::testing::WithParamInterface<MountpointKind> {
 protected:
  void MountDevice(const std::string& options = "ro") {
    ASSERT_NO_FATAL_FAILURE(Mount(MakeDevice(), GetParam(), options));
  }
  const std::unique_ptr<ModelDevice> model_ = MakeDevice();
};

INSTANTIATE_TEST_SUITE_P(, MountedFileTest,
                         ::testing::Values(MountpointKind::kFile,
                                           MountpointKind::kDirectory),
                         [](const auto& param) {
                           return param.param == MountpointKind::kFile
                                      ? "File"
                                      : "Directory";
                         });

TEST_P(MountedFileTest, ReadsEqualTheModelFromManyThreads) {
  MountDevice();
  std::vector<std::jthread> readers;
  for (unsigned seed = 0; seed < 8; ++seed) {
    readers.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      const OpenFile file(disk(), O_RDONLY | (seed % 2 == 0 ? 0 : O_DIRECT));
      ASSERT_GE(file.fd(), 0);
      std::vector<std::byte> bytes;
      for (int i = 0; i < 40; ++i) {
        const uint64_t offset = random() % (kSize + 10'000);
        bytes.resize(random() % (i % 4 == 0 ? 2'000'000 : 5'000));
        const ssize_t length = pread(file.fd(), bytes.data(), bytes.size(),
                                     static_cast<off_t>(offset));
        const uint64_t expected =
            offset >= kSize ? 0
                            : std::min<uint64_t>(bytes.size(), kSize - offset);
        ASSERT_EQ(length, static_cast<ssize_t>(expected)) << "at " << offset;
        bytes.resize(expected);
        ASSERT_EQ(FirstDifference(*model_, offset, bytes), -1);
      }
    });
  }
  readers.clear();
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, WholeFileIsMappedWithoutAStatBefore) {
  MountDevice();
  {
    const OpenFile file(disk(), O_RDONLY);
    ASSERT_GE(file.fd(), 0);
    void* const memory =
        mmap(nullptr, kSize, PROT_READ, MAP_SHARED, file.fd(), 0);
    ASSERT_NE(memory, MAP_FAILED);
    EXPECT_EQ(FirstDifference(*model_, 0,
                              {static_cast<const std::byte*>(memory), kSize}),
              -1);
    munmap(memory, kSize);
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, KernelLimitsAreRaisedWhereRootMounts) {
  if (geteuid() != 0) GTEST_SKIP() << "only root may tell the kernel";
  MountDevice();
  // For reading ahead it takes the lower of what /sys and the answer to INIT
  // say; a request that was answered comes after INIT.
  struct stat status;
  ASSERT_EQ(stat(disk().c_str(), &status), 0);
  const auto setting = [&](const char* name) {
    std::ifstream file(fs::path("/sys/class/bdi") /
                       (std::to_string(major(status.st_dev)) + ":" +
                        std::to_string(minor(status.st_dev))) /
                       name);
    uint32_t value = 0;
    file >> value;
    return value;
  };
  EXPECT_EQ(setting("read_ahead_kb"), kReadAheadBytes / 1024);
  EXPECT_EQ(setting("max_ratio"), kDirtyPercent);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, SeekWalksHolesAndDataAsTheDeviceHasThem) {
  MountDevice();
  {
    const OpenFile file(disk(), O_RDONLY);
    std::vector<ByteRange> holes;
    for (off_t offset = 0;;) {
      const off_t hole = lseek(file.fd(), offset, SEEK_HOLE);
      ASSERT_GE(hole, 0);
      const off_t data = lseek(file.fd(), hole, SEEK_DATA);
      if (data < 0) {
        EXPECT_EQ(errno, ENXIO);
        holes.push_back({static_cast<uint64_t>(hole), kSize});
        break;
      }
      holes.push_back(
          {static_cast<uint64_t>(hole), static_cast<uint64_t>(data)});
      offset = data;
    }
    ASSERT_EQ(holes.size(), kHoles.size());
    for (size_t i = 0; i < holes.size(); ++i) {
      EXPECT_EQ(holes[i].begin, kHoles[i].begin);
      EXPECT_EQ(holes[i].end, kHoles[i].end);
    }
    EXPECT_EQ(lseek(file.fd(), 5'000'000, SEEK_DATA), 5'000'000);
    EXPECT_EQ(lseek(file.fd(), 10'000'000, SEEK_HOLE), 10'000'000);
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, SeekFromTheEndOrBeforeTheStartIsRefused) {
  MountDevice();
  {
    const OpenFile file(disk(), O_RDONLY);
    for (const int whence : {SEEK_HOLE, SEEK_DATA}) {
      for (const off_t offset : {static_cast<off_t>(kSize),
                                 static_cast<off_t>(kSize) + 1, off_t{-1}}) {
        errno = 0;
        EXPECT_EQ(lseek(file.fd(), offset, whence), -1);
        EXPECT_EQ(errno, ENXIO) << offset;
      }
    }
    EXPECT_EQ(lseek(file.fd(), -123, SEEK_END),
              static_cast<off_t>(kSize) - 123);
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, AttributesAreThoseOfTheImage) {
  MountDevice();
  struct stat first = {};
  ASSERT_EQ(stat(disk().c_str(), &first), 0);
  EXPECT_EQ(first.st_size, static_cast<off_t>(kSize));
  EXPECT_TRUE(S_ISREG(first.st_mode));
  EXPECT_EQ(first.st_mode & 07777, 0400U);
  EXPECT_EQ(first.st_uid, getuid());
  EXPECT_EQ(first.st_gid, getgid());
  EXPECT_EQ(first.st_nlink, 1U);
  EXPECT_EQ(first.st_mtim.tv_sec, image().st_mtim.tv_sec);
  EXPECT_EQ(first.st_mtim.tv_nsec, image().st_mtim.tv_nsec);
  EXPECT_EQ(first.st_ctim.tv_nsec, image().st_ctim.tv_nsec);
  EXPECT_EQ(first.st_atim.tv_nsec, image().st_atim.tv_nsec);
  uint64_t stored = kSize;
  for (const ByteRange& hole : kHoles) stored -= hole.end - hole.begin;
  EXPECT_EQ(first.st_blocks, static_cast<blkcnt_t>((stored + 511) / 512));

  EXPECT_EQ(EndByUnmount(), 0) << Log();
  MountDevice();
  struct stat second = {};
  ASSERT_EQ(stat(disk().c_str(), &second), 0);
  EXPECT_EQ(second.st_ino, first.st_ino);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, OwnerAndModeFollowTheOptions) {
  MountDevice("uid=1234,gid=4321,umask=027,allow_other");
  struct stat status = {};
  ASSERT_EQ(stat(disk().c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 1234U);
  EXPECT_EQ(status.st_gid, 4321U);
  EXPECT_EQ(status.st_mode & 07777, 0440U);
  EXPECT_EQ(EndByUnmount(), 0) << Log();

  MountDevice("allow_other");
  ASSERT_EQ(stat(disk().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0444U);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, NothingCanBeChanged) {
  MountDevice();
  const std::string path = disk().string();
  for (const int flags : {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC}) {
    const OpenFile file(path, flags);
    EXPECT_EQ(file.fd(), -1);
    EXPECT_EQ(errno, EROFS);
  }
  const auto is_refused = [](int result) {
    return result == -1 && errno == EROFS;
  };
  EXPECT_TRUE(is_refused(truncate(path.c_str(), 0)));
  EXPECT_TRUE(is_refused(chmod(path.c_str(), 0666)));
  EXPECT_TRUE(is_refused(utimensat(AT_FDCWD, path.c_str(), nullptr, 0)));
  EXPECT_TRUE(is_refused(setxattr(path.c_str(), "user.x", "y", 1, 0)));
  if (GetParam() == MountpointKind::kDirectory) {
    EXPECT_TRUE(is_refused(unlink(path.c_str())));
    EXPECT_TRUE(is_refused(mkdir((mountpoint() / "new").c_str(), 0777)));
    EXPECT_TRUE(is_refused(
        open((mountpoint() / "new").c_str(), O_CREAT | O_WRONLY, 0666)));
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, ServerTellsItsProcessAndListsNoAttribute) {
  MountDevice();
  char value[32] = {};
  ASSERT_GT(getxattr(mountpoint().c_str(), "user.pellucid.pid", value,
                     sizeof value - 1),
            0);
  EXPECT_EQ(std::atoi(value), server());
  errno = 0;
  EXPECT_EQ(getxattr(mountpoint().c_str(), "user.pellucid.pid", value, 1), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(getxattr(disk().c_str(), "user.other", value, sizeof value), -1);
  EXPECT_EQ(errno, ENODATA);
  EXPECT_EQ(listxattr(disk().c_str(), nullptr, 0), 0);
  EXPECT_EQ(listxattr(disk().c_str(), value, sizeof value), 0);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(MountedFileTest, FileSystemIsAsLargeAsTheFile) {
  MountDevice();
  struct statvfs status = {};
  ASSERT_EQ(statvfs(mountpoint().c_str(), &status), 0);
  EXPECT_EQ(status.f_blocks, (kSize + 4095) / 4096);
  EXPECT_EQ(status.f_bfree, 0U);
  EXPECT_NE(status.f_flag & ST_RDONLY, 0U);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

class DirectoryTest : public MountTest {};

TEST_F(DirectoryTest, ShowsOneFile) {
  ASSERT_NO_FATAL_FAILURE(Mount(MakeDevice(), MountpointKind::kDirectory));
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(mountpoint())) {
    EXPECT_TRUE(entry.is_regular_file());
    names.push_back(entry.path().filename());
  }
  EXPECT_EQ(names, std::vector<std::string>{"disk"});
  EXPECT_FALSE(fs::exists(mountpoint() / "other"));
  struct stat root = {};
  ASSERT_EQ(stat(mountpoint().c_str(), &root), 0);
  EXPECT_TRUE(S_ISDIR(root.st_mode));
  EXPECT_EQ(root.st_mode & 07777, 0500U);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

class DeviceSizeTest : public MountTest {};

TEST_F(DeviceSizeTest, EmptyDeviceIsAnEmptyFile) {
  ASSERT_NO_FATAL_FAILURE(
      Mount(std::make_unique<ModelDevice>(0, std::vector<ByteRange>{}),
            MountpointKind::kFile));
  EXPECT_EQ(fs::file_size(disk()), 0U);
  {
    const OpenFile file(disk(), O_RDONLY);
    char byte = 0;
    EXPECT_EQ(read(file.fd(), &byte, 1), 0);
    EXPECT_EQ(lseek(file.fd(), 0, SEEK_DATA), -1);
    EXPECT_EQ(errno, ENXIO);
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_F(DeviceSizeTest, LastBytesOfATerabyteAreThere) {
  constexpr uint64_t kHuge = (uint64_t{8} << 40) + 1;
  const std::vector<ByteRange> holes = {{4096, kHuge - 1}};
  ASSERT_NO_FATAL_FAILURE(Mount(std::make_unique<ModelDevice>(kHuge, holes),
                                MountpointKind::kFile));
  EXPECT_EQ(fs::file_size(disk()), kHuge);
  {
    const OpenFile file(disk(), O_RDONLY);
    EXPECT_EQ(lseek(file.fd(), 4096, SEEK_DATA), static_cast<off_t>(kHuge - 1));
    std::byte last[2];
    ASSERT_EQ(pread(file.fd(), last, 2, static_cast<off_t>(kHuge - 1)), 1);
    EXPECT_EQ(last[0], ModelDevice(kHuge, holes).ByteAt(kHuge - 1));
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

}  // namespace
}  // namespace pellucid::fuse
