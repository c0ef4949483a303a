// What programs see that write to a mounted device.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/fuse/mount_fixture.h"
#include "tests/fuse/writable_model_device.h"

namespace pellucid::fuse {
namespace {

using Bytes = std::vector<std::byte>;

// Odd on purpose: ends within a page.
constexpr uint64_t kSize = 3'000'123;

Bytes Filled(size_t size, int value) {
  return Bytes(size, static_cast<std::byte>(value));
}

ssize_t WriteAt(const OpenFile& file, const Bytes& bytes, uint64_t offset) {
  return pwrite(file.fd(), bytes.data(), bytes.size(),
                static_cast<off_t>(offset));
}

// Each kind of mountpoint, with the kernel's writeback cache and without.
class WrittenFileTest
    : public MountTest,
      public ::testing::WithParamInterface<std::tuple<MountpointKind, bool>> {
 protected:
  void MountDisk(uint64_t size = kSize, const std::string& options = "") {
    disk_ = std::make_unique<SharedDisk>(size);
    for (uint64_t i = 0; i < size; ++i) {
      disk_->bytes()[i] = Pattern(i);
    }
    std::ranges::fill(disk_->stored(), std::byte{1});
    Remount(options);
  }
  void Remount(const std::string& options = "") {
    set_kernel_writeback(writeback());
    auto device = std::make_unique<WritableModelDevice>(*disk_);
    WritableDevice* const writable = device.get();
    ASSERT_NO_FATAL_FAILURE(Mount(MountedDevice(std::move(device), writable),
                                  std::get<0>(GetParam()), options));
  }
  static bool writeback() { return std::get<1>(GetParam()); }
  static std::byte Pattern(uint64_t offset) {
    return static_cast<std::byte>(1 + (offset ^ (offset >> 9)) % 251);
  }
  SharedDisk::Journal& journal() { return disk_->journal(); }
  // True if the device has `bytes` at `offset`.
  bool Has(const Bytes& bytes, uint64_t offset) {
    return std::ranges::equal(disk_->bytes().subspan(offset, bytes.size()),
                              bytes);
  }
  bool HasPattern(uint64_t begin, uint64_t end) {
    for (uint64_t i = begin; i < end; ++i) {
      if (disk_->bytes()[i] != Pattern(i)) return false;
    }
    return true;
  }
  struct stat Status() const {
    struct stat status = {};
    EXPECT_EQ(stat(disk().c_str(), &status), 0);
    return status;
  }
  off_t FileSize() const { return Status().st_size; }

  std::unique_ptr<SharedDisk> disk_;
};

INSTANTIATE_TEST_SUITE_P(
    , WrittenFileTest,
    ::testing::Combine(::testing::Values(MountpointKind::kFile,
                                         MountpointKind::kDirectory),
                       ::testing::Bool()),
    [](const auto& param) {
      return std::string(std::get<0>(param.param) == MountpointKind::kFile
                             ? "File"
                             : "Directory") +
             (std::get<1>(param.param) ? "Cached" : "Through");
    });

TEST_P(WrittenFileTest, SizeTimesAndModeAreRightFromTheStart) {
  for (const uint64_t size : {uint64_t{1}, uint64_t{4095}, uint64_t{4096},
                              uint64_t{1} << 20, kSize}) {
    MountDisk(size);
    const struct stat status = Status();
    EXPECT_EQ(status.st_size, static_cast<off_t>(size));
    EXPECT_EQ(status.st_mode & 07777, 0600U);
    EXPECT_EQ(status.st_uid, getuid());
    EXPECT_EQ(status.st_mtim.tv_sec, image().st_mtim.tv_sec);
    EXPECT_EQ(status.st_mtim.tv_nsec, image().st_mtim.tv_nsec);
    {
      const OpenFile file(disk(), O_RDWR);
      ASSERT_GE(file.fd(), 0);
      EXPECT_EQ(lseek(file.fd(), 0, SEEK_END), static_cast<off_t>(size));
      Bytes last(10);
      ASSERT_EQ(pread(file.fd(), last.data(), last.size(),
                      static_cast<off_t>(size - 1)),
                1);
      EXPECT_EQ(last[0], Pattern(size - 1));
      EXPECT_EQ(pread(file.fd(), last.data(), 1, static_cast<off_t>(size)), 0);
    }
    EXPECT_EQ(EndByUnmount(), 0) << Log();
  }
}

TEST_P(WrittenFileTest, EmptyDeviceTakesNothing) {
  MountDisk(0);
  EXPECT_EQ(FileSize(), 0);
  {
    const OpenFile file(disk(), O_RDWR | O_DIRECT);
    EXPECT_EQ(WriteAt(file, Filled(4096, 1), 0), -1);
    EXPECT_EQ(errno, ENOSPC);
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, WritesOfEveryKindReachTheDevice) {
  MountDisk();
  {
    const OpenFile buffered(disk(), O_RDWR);
    const OpenFile direct(disk(), O_RDWR | O_DIRECT);
    EXPECT_EQ(WriteAt(buffered, Filled(1, 200), 5), 1);
    EXPECT_EQ(WriteAt(buffered, Filled(700'000, 201), 100'001), 700'000);
    EXPECT_EQ(WriteAt(direct, Filled(700'001, 202), 1'000'003), 700'001);
    EXPECT_EQ(WriteAt(direct, Filled(512, 203), 2'000'000), 512);
    EXPECT_EQ(WriteAt(buffered, Filled(23, 204), kSize - 23), 23);
    Bytes seen(3);
    EXPECT_EQ(pread(direct.fd(), seen.data(), 3, 4), 3);
    EXPECT_EQ(seen[1], std::byte{200});
    EXPECT_EQ(pread(buffered.fd(), seen.data(), 3, 1'000'004), 3);
    EXPECT_EQ(seen[0], std::byte{202});
    EXPECT_EQ(fsync(buffered.fd()), 0);
    EXPECT_GE(journal().flushes, 1U);
    EXPECT_EQ(journal().writes_since_flush, 0U);
  }
  EXPECT_TRUE(HasPattern(0, 5) && HasPattern(6, 100'001));
  EXPECT_TRUE(Has(Filled(1, 200), 5) && Has(Filled(700'000, 201), 100'001) &&
              Has(Filled(700'001, 202), 1'000'003) &&
              Has(Filled(512, 203), 2'000'000));
  EXPECT_TRUE(HasPattern(2'000'512, kSize - 23));
  EXPECT_TRUE(Has(Filled(23, 204), kSize - 23));
  EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, DirectWritesStopAtTheEnd) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR | O_DIRECT);
    EXPECT_EQ(WriteAt(file, Filled(100, 1), kSize - 40), -1);
    EXPECT_EQ(errno, ENOSPC);
    EXPECT_EQ(WriteAt(file, Filled(40, 1), kSize - 40), 40);
    EXPECT_EQ(WriteAt(file, Filled(100, 1), kSize), -1);
    EXPECT_EQ(errno, ENOSPC);
    EXPECT_EQ(WriteAt(file, Filled(100, 1), kSize + 5000), -1);
    EXPECT_EQ(errno, ENOSPC);
    EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
  }
  EXPECT_TRUE(Has(Filled(40, 1), kSize - 40));
  EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, BufferedWritesBehindTheEndFailAtLastAndLeaveNoTrace) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR | O_APPEND);
    const Bytes piece = Filled(100'000, 9);
    const ssize_t written = write(file.fd(), piece.data(), piece.size());
    // At once, or when it is to become durable.
    if (written == static_cast<ssize_t>(piece.size())) {
      EXPECT_EQ(fsync(file.fd()), -1);
      EXPECT_EQ(errno, ENOSPC);
      // What fills a disk until it is full must not go on for ever.
      EXPECT_EQ(write(file.fd(), piece.data(), piece.size()), -1);
    }
    EXPECT_EQ(errno, ENOSPC);
  }
  EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
  EXPECT_TRUE(HasPattern(0, kSize));
  {
    const OpenFile file(disk(), O_RDWR);
    EXPECT_EQ(lseek(file.fd(), 0, SEEK_END), static_cast<off_t>(kSize));
    EXPECT_EQ(WriteAt(file, Filled(10, 8), kSize - 10), 10);
    EXPECT_EQ(fsync(file.fd()), 0);
    Bytes seen(100);
    EXPECT_EQ(pread(file.fd(), seen.data(), 100, kSize - 10), 10);
  }
  EXPECT_TRUE(Has(Filled(10, 8), kSize - 10));
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, CloseThatFailsBehindTheEndRestoresTheSize) {
  MountDisk();
  const int fd = open(disk().c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  const bool is_put_off = write(fd, "x", 1) == 1;
  EXPECT_EQ(close(fd), is_put_off ? -1 : 0);
  EXPECT_EQ(errno, ENOSPC);
  // The kernel does not wait for this.
  for (int i = 0; i < 100 && FileSize() != static_cast<off_t>(kSize); ++i) {
    usleep(20'000);
  }
  EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, MappingsAreWritten) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR);
    void* const shared =
        mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd(), 0);
    ASSERT_NE(shared, MAP_FAILED);
    void* const own =
        mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.fd(), 0);
    ASSERT_NE(own, MAP_FAILED);
    static_cast<std::byte*>(shared)[kSize - 1] = std::byte{77};
    static_cast<std::byte*>(shared)[12'345] = std::byte{78};
    static_cast<std::byte*>(own)[20'000] = std::byte{79};
    EXPECT_EQ(msync(shared, kSize, MS_SYNC), 0);
    EXPECT_TRUE(Has(Filled(1, 77), kSize - 1) && Has(Filled(1, 78), 12'345));
    EXPECT_EQ(journal().writes_since_flush, 0U);
    munmap(own, kSize);
    munmap(shared, kSize);
  }
  EXPECT_TRUE(HasPattern(12'346, kSize - 1));
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, TruncationKeepsTheSizeAndTheContent) {
  MountDisk();
  {
    const OpenFile writer(disk(), O_RDWR);
    EXPECT_EQ(WriteAt(writer, Filled(100, 5), 50'000), 100);
    // The write may still be in the kernel alone.
    const OpenFile truncating(disk(), O_WRONLY | O_TRUNC);
    ASSERT_GE(truncating.fd(), 0);
    EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
    EXPECT_EQ(ftruncate(truncating.fd(), 0), 0);
    EXPECT_EQ(ftruncate(truncating.fd(), static_cast<off_t>(kSize)), 0);
    EXPECT_EQ(lseek(truncating.fd(), 0, SEEK_END), static_cast<off_t>(kSize));
    EXPECT_EQ(ftruncate(truncating.fd(), static_cast<off_t>(kSize) - 1), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(ftruncate(truncating.fd(), static_cast<off_t>(kSize) + 1), -1);
    EXPECT_EQ(errno, EFBIG);
    EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
  }
  EXPECT_TRUE(Has(Filled(100, 5), 50'000));
  EXPECT_TRUE(HasPattern(0, 50'000) && HasPattern(50'100, kSize));
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, RangesAreZeroed) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR);
    EXPECT_EQ(WriteAt(file, Filled(20'000, 5), 90'000), 20'000);
    EXPECT_EQ(fallocate(file.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        100'000, 200'000),
              0);
    EXPECT_EQ(fallocate(file.fd(), FALLOC_FL_ZERO_RANGE, 400'000, 50'000), 0);
    EXPECT_EQ(fallocate(file.fd(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                        kSize - 100, 100),
              0);
    Bytes seen(1'000);
    EXPECT_EQ(pread(file.fd(), seen.data(), 1'000, 100'000), 1'000);
    EXPECT_EQ(seen, Filled(1'000, 0));
    EXPECT_EQ(lseek(file.fd(), 0, SEEK_HOLE), 102'400);
    EXPECT_EQ(lseek(file.fd(), 102'400, SEEK_DATA), 299'008);
    EXPECT_EQ(lseek(file.fd(), 299'008, SEEK_HOLE), static_cast<off_t>(kSize));
    // Behind the end is a hole already.
    EXPECT_EQ(fallocate(file.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        kSize - 10, 20'000),
              0);
    for (const int mode :
         {FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE}) {
      EXPECT_EQ(fallocate(file.fd(), mode, kSize - 10, 11), -1);
      EXPECT_EQ(errno, ENOSPC);
    }
    for (const int mode : {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_COLLAPSE_RANGE}) {
      EXPECT_EQ(fallocate(file.fd(), mode, 0, 4096), -1);
      EXPECT_EQ(errno, EOPNOTSUPP) << mode;
    }
    EXPECT_EQ(posix_fallocate(file.fd(), 100'000, 50'000), 0);
    EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
  }
  EXPECT_TRUE(HasPattern(0, 90'000) && Has(Filled(10'000, 5), 90'000) &&
              Has(Filled(200'000, 0), 100'000) &&
              HasPattern(300'000, 400'000) && Has(Filled(50'000, 0), 400'000) &&
              HasPattern(450'000, kSize - 100) &&
              Has(Filled(100, 0), kSize - 100));
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, DataThatOnlyTheKernelHasIsNoHole) {
  disk_ = std::make_unique<SharedDisk>(kSize);
  Remount();
  {
    const OpenFile writer(disk(), O_RDWR);
    const OpenFile reader(disk(), O_RDONLY);
    EXPECT_EQ(lseek(reader.fd(), 0, SEEK_DATA), -1);
    EXPECT_EQ(WriteAt(writer, Filled(4096, 1), 409'600), 4096);
    EXPECT_EQ(lseek(reader.fd(), 0, SEEK_DATA), 409'600);
    EXPECT_EQ(lseek(reader.fd(), 409'600, SEEK_HOLE), 413'696);
  }
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, CopyFileRangeCopies) {
  MountDisk();
  {
    const OpenFile file(disk(), O_RDWR);
    loff_t from = 1'000;
    loff_t to = 2'000'000;
    ssize_t copied = 0;
    while (to < 2'500'000 && copied >= 0) {
      copied = copy_file_range(file.fd(), &from, file.fd(), &to,
                               static_cast<size_t>(2'500'000 - to), 0);
      ASSERT_GT(copied, 0);
    }
  }
  const auto bytes = disk_->bytes();
  EXPECT_TRUE(std::ranges::equal(bytes.subspan(1'000, 500'000),
                                 bytes.subspan(2'000'000, 500'000)));
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, ModificationTimeMovesOnlyWithTheData) {
  MountDisk();
  const auto is_images = [&] {
    const struct stat status = Status();
    return status.st_mtim.tv_sec == image().st_mtim.tv_sec &&
           status.st_mtim.tv_nsec == image().st_mtim.tv_nsec;
  };
  {
    const OpenFile file(disk(), O_RDWR);
    char byte = 0;
    EXPECT_EQ(pread(file.fd(), &byte, 1, 0), 1);
    EXPECT_EQ(fsync(file.fd()), 0);
  }
  EXPECT_TRUE(is_images());
  usleep(20'000);
  {
    const OpenFile file(disk(), O_RDWR);
    EXPECT_EQ(WriteAt(file, Filled(1, 1), 0), 1);
  }
  EXPECT_FALSE(is_images());
  const timespec set[2] = {{1'000'000'000, 1}, {1'000'000'000, 2}};
  EXPECT_EQ(utimensat(AT_FDCWD, disk().c_str(), set, 0), 0);
  EXPECT_EQ(Status().st_mtim.tv_sec, 1'000'000'000);
  EXPECT_EQ(Status().st_mtim.tv_nsec, 2);
  { const OpenFile file(disk(), O_RDWR); }
  EXPECT_EQ(Status().st_mtim.tv_sec, 1'000'000'000);
  {
    const OpenFile file(disk(), O_RDWR | O_DIRECT);
    EXPECT_EQ(WriteAt(file, Filled(512, 1), 0), 512);
  }
  EXPECT_GT(Status().st_mtim.tv_sec, 1'500'000'000);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, OwnerAndModeStay) {
  MountDisk();
  const std::string path = disk().string();
  EXPECT_EQ(chmod(path.c_str(), 0600), 0);
  EXPECT_EQ(chmod(path.c_str(), 0644), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(chown(path.c_str(), getuid(), getgid()), 0);
  EXPECT_EQ(chown(path.c_str(), 4711, getgid()), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(EndByUnmount(), 0) << Log();

  Remount("umask=022,uid=12,gid=13,allow_other");
  EXPECT_EQ(Status().st_mode & 07777, 0644U);
  EXPECT_EQ(Status().st_uid, 12U);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, BlocksFollowWhatIsStored) {
  disk_ = std::make_unique<SharedDisk>(kSize);
  Remount("rw");
  EXPECT_EQ(Status().st_blocks, 0);
  {
    const OpenFile file(disk(), O_RDWR);
    EXPECT_EQ(WriteAt(file, Filled(409'600, 1), 0), 409'600);
    EXPECT_EQ(fsync(file.fd()), 0);
  }
  blkcnt_t blocks = 0;
  for (int i = 0; i < 50 && blocks != 800; ++i) {
    blocks = Status().st_blocks;
    usleep(100'000);
  }
  EXPECT_EQ(blocks, 800);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, ReadOnlyOptionWins) {
  MountDisk(kSize, "ro");
  const OpenFile file(disk(), O_RDWR);
  EXPECT_EQ(file.fd(), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(Status().st_mode & 07777, 0400U);
  struct statvfs status = {};
  ASSERT_EQ(statvfs(mountpoint().c_str(), &status), 0);
  EXPECT_NE(status.f_flag & ST_RDONLY, 0U);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

TEST_P(WrittenFileTest, ErrorsOfTheDeviceReachTheWriter) {
  MountDisk();
  for (const int error : {ENOSPC, EIO}) {
    journal().write_errno = error;
    {
      const OpenFile direct(disk(), O_RDWR | O_DIRECT);
      EXPECT_EQ(WriteAt(direct, Filled(4096, 1), 0), -1);
      EXPECT_EQ(errno, error);
    }
    {
      const OpenFile buffered(disk(), O_RDWR);
      if (WriteAt(buffered, Filled(10, 1), 8192) == 10) {
        EXPECT_EQ(fsync(buffered.fd()), -1);
      }
      EXPECT_EQ(errno, error);
    }
    const int fd = open(disk().c_str(), O_RDWR | O_CLOEXEC);
    ssize_t written = pwrite(fd, "x", 1, 9000);
    EXPECT_EQ(close(fd), written == 1 ? -1 : 0);
    EXPECT_EQ(errno, error);
    journal().write_errno = 0;
    journal().flush_errno = error;
    {
      const OpenFile file(disk(), O_RDWR);
      EXPECT_EQ(fsync(file.fd()), -1);
      EXPECT_EQ(errno, error);
      EXPECT_EQ(fdatasync(file.fd()), -1);
    }
    journal().flush_errno = 0;
  }
  EXPECT_EQ(FileSize(), static_cast<off_t>(kSize));
  EXPECT_NE(Log().find("model: flush"), std::string::npos);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

}  // namespace
}  // namespace pellucid::fuse
