#include "engine/file_device.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

constexpr FileDevice::Sharing kExclusive = FileDevice::Sharing::kExclusive;

class FileDeviceTest : public testing::Test {
 protected:
  template <typename Exception>
  std::string Refusal(const std::filesystem::path& file) {
    return ThrownText<Exception>([&] { FileDevice::Open(file, kExclusive); });
  }

  ScratchFolder folder_;
};

TEST_F(FileDeviceTest, DirectoryIsRefused) {
  EXPECT_THAT(Refusal<UsageError>(folder_.path()),
              HasSubstr(folder_.path().native() + ": is a directory"));
}

TEST_F(FileDeviceTest, FifoIsRefusedWithoutWaitingForAWriter) {
  ASSERT_EQ(mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(Refusal<UsageError>(folder_ / "fifo"), HasSubstr("is a FIFO"));
}

TEST_F(FileDeviceTest, CharacterDeviceIsRefused) {
  EXPECT_THAT(Refusal<UsageError>("/dev/null"),
              HasSubstr("/dev/null: is a character device"));
}

TEST_F(FileDeviceTest, SocketIsRefused) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = folder_ / "socket";
  ASSERT_LT(path.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(
      bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_THAT(Refusal<UsageError>(path), HasSubstr("is a special file"));
  close(fd);
}

TEST_F(FileDeviceTest, MissingFileSaysWhatTheHostSays) {
  try {
    FileDevice::Open(folder_ / "none", kExclusive);
    FAIL() << "opened";
  } catch (const IoError& error) {
    EXPECT_EQ(error.host_errno(), ENOENT);
    EXPECT_THAT(error.what(), HasSubstr("none: cannot open it for reading: "
                                        "No such file or directory"));
  }
}

TEST_F(FileDeviceTest, SymbolicLinkLeadsToItsFile) {
  WriteHostFile(folder_ / "disk.raw", "content");
  std::filesystem::create_symlink("disk.raw", folder_ / "link");
  EXPECT_EQ(FileDevice::Open(folder_ / "link", kExclusive)->size(), 7U);
}

TEST_F(FileDeviceTest, EmptyFileHasNoBytes) {
  WriteHostFile(folder_ / "empty", "");
  EXPECT_EQ(FileDevice::Open(folder_ / "empty", kExclusive)->size(), 0U);
}

TEST_F(FileDeviceTest, ExtentsOfASparseFileAreItsOwn) {
  constexpr uint64_t kMiB = 1 << 20;
  const std::string path = folder_ / "sparse";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const Bytes data = Noise(kMiB, 1);
  ASSERT_EQ(pwrite(fd, data.data(), kMiB, kMiB), off_t{kMiB});
  ASSERT_EQ(ftruncate(fd, 4 * kMiB), 0);
  close(fd);
  const auto device = FileDevice::Open(path, kExclusive);
  const auto expect = [&](uint64_t at, uint64_t most, uint64_t length,
                          bool is_hole) {
    const Extent extent = device->ExtentAt(at, most);
    EXPECT_EQ(extent.length, length) << "at " << at;
    EXPECT_EQ(extent.is_hole, is_hole) << "at " << at;
  };
  expect(0, 4 * kMiB, kMiB, true);
  expect(0, 100, 100, true);
  expect(kMiB - 1, 4 * kMiB, 1, true);
  expect(kMiB, 4 * kMiB, kMiB, false);
  expect(kMiB + 5, 10, 10, false);
  expect(2 * kMiB, UINT64_MAX, 2 * kMiB, true);
  expect(4 * kMiB - 1, UINT64_MAX, 1, true);
}

TEST_F(FileDeviceTest, FileThatBecomesShorterIsAnErrorThatNamesTheOffset) {
  WriteHostFile(folder_ / "disk.raw", std::string(10000, 'x'));
  const auto device = FileDevice::Open(folder_ / "disk.raw", kExclusive);
  std::filesystem::resize_file(folder_ / "disk.raw", 6000);
  EXPECT_EQ(device->size(), 10000U);
  Bytes out(4000);
  device->Read(2000, out);
  try {
    device->Read(3000, out);
    FAIL() << "read behind the end";
  } catch (const IoError& error) {
    EXPECT_EQ(error.host_errno(), EIO);
    EXPECT_THAT(error.what(), HasSubstr("disk.raw: ends at offset 6000"));
  }
  // The end, as far as anybody knew it, is a hole, not a failure.
  EXPECT_TRUE(device->ExtentAt(7000, 3000).is_hole);
}

TEST_F(FileDeviceTest, FileThatGrowsKeepsTheSizeItWasOpenedWith) {
  WriteHostFile(folder_ / "disk.raw", "1234");
  const auto device = FileDevice::Open(folder_ / "disk.raw", kExclusive);
  std::filesystem::resize_file(folder_ / "disk.raw", 1 << 20);
  EXPECT_EQ(device->size(), 4U);
  EXPECT_EQ(device->host_stat().st_size, 4);
  EXPECT_EQ(device->ExtentAt(0, 1 << 20).length, 4U);
}

}  // namespace
}  // namespace pellucid
