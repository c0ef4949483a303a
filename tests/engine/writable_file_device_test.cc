#include "engine/writable_file_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class WritableFileDeviceTest : public ::testing::Test {
 protected:
  void TearDown() override {
    umount2(Path("ramfs").c_str(), MNT_DETACH);  // If a test has mounted it.
  }

  fs::path Path(std::string_view name) const { return folder_ / name; }

  ScratchFolder folder_;
};

TEST_F(WritableFileDeviceTest, WritesAreReadBackAndReachTheFile) {
  const Bytes content = Noise(100000, 1);
  const Bytes change = Noise(5000, 2);
  WriteHostFile(Path("disk"), content);
  {
    const auto device = WritableFileDevice::Open(Path("disk"));
    ASSERT_EQ(device->size(), content.size());
    device->Write(777, change);
    device->Flush();
    Bytes found(change.size());
    device->Read(777, found);
    EXPECT_EQ(found, change);
  }
  Bytes expected = content;
  std::ranges::copy(change, expected.begin() + 777);
  EXPECT_EQ(ReadHostFile(Path("disk")), expected);
}

TEST_F(WritableFileDeviceTest, WritingBehindTheEndMovesIt) {
  WriteHostFile(Path("disk"), Noise(1000, 1));
  const auto device = WritableFileDevice::Open(Path("disk"));
  const Bytes more = Noise(500, 2);
  device->Write(3000, more);
  EXPECT_EQ(device->size(), 3500U);
  Bytes expected = Noise(1000, 1);
  expected.resize(3000);
  expected.insert(expected.end(), more.begin(), more.end());
  EXPECT_EQ(ReadHostFile(Path("disk")), expected);
}

TEST_F(WritableFileDeviceTest, ZeroesReadAsZerosAndGiveSpaceBackIfAsked) {
  for (const ZeroMode mode : {ZeroMode::kKeepSpace, ZeroMode::kFreeSpace}) {
    Bytes content = Noise(1 << 20, 1);
    WriteHostFile(Path("disk"), content);
    const auto device = WritableFileDevice::Open(Path("disk"));
    device->WriteZeroes(5, 0, mode);
    device->WriteZeroes(70001, 700000, mode);
    std::fill_n(content.begin() + 70001, 700000, std::byte{0});
    EXPECT_EQ(ReadHostFile(Path("disk")), content);
    struct stat stat = {};
    ASSERT_EQ(::stat(Path("disk").c_str(), &stat), 0);
    EXPECT_EQ(stat.st_size, 1 << 20);
    if (mode == ZeroMode::kFreeSpace) {
      EXPECT_LT(stat.st_blocks * 512, 1 << 20);
    } else {
      EXPECT_GE(stat.st_blocks * 512, 1 << 20);
    }
  }
}

// An offer costs nothing where it cannot be taken; what has to read as zeros is
// written then.
TEST_F(WritableFileDeviceTest, HostWithoutHolesKeepsTheSpace) {
  if (geteuid() != 0) {
    ASSERT_EQ(getenv("CI"), nullptr) << "mounting a file system needs root";
    GTEST_SKIP() << "mounting a file system needs root";
  }
  fs::create_directory(Path("ramfs"));
  ASSERT_EQ(mount("none", Path("ramfs").c_str(), "ramfs", 0, nullptr), 0);
  Bytes content = Noise(300000, 1);
  WriteHostFile(Path("ramfs") / "disk", content);
  {
    const auto device = WritableFileDevice::Open(Path("ramfs") / "disk");
    device->FreeSpace(0, 100000);
    EXPECT_EQ(ReadHostFile(Path("ramfs") / "disk"), content);
    for (const ZeroMode mode : {ZeroMode::kFreeSpace, ZeroMode::kKeepSpace}) {
      const size_t begin = mode == ZeroMode::kFreeSpace ? 5 : 200005;
      device->WriteZeroes(begin, 70001, mode);
      std::fill_n(content.begin() + static_cast<ptrdiff_t>(begin), 70001,
                  std::byte{0});
      EXPECT_EQ(ReadHostFile(Path("ramfs") / "disk"), content);
    }
  }
}

TEST_F(WritableFileDeviceTest, FreedSpaceIsGivenToTheHost) {
  WriteHostFile(Path("disk"), Noise(1 << 20, 1));
  const auto device = WritableFileDevice::Open(Path("disk"));
  device->FreeSpace(0, 512 << 10);
  struct stat stat = {};
  ASSERT_EQ(::stat(Path("disk").c_str(), &stat), 0);
  EXPECT_LE(stat.st_blocks * 512, 600 << 10);
  EXPECT_EQ(stat.st_size, 1 << 20);
}

TEST_F(WritableFileDeviceTest, CreatedFileIsEmptyAndForItsOwnerAlone) {
  const auto device = WritableFileDevice::Create(Path("new"));
  EXPECT_EQ(device->size(), 0U);
  struct stat stat = {};
  ASSERT_EQ(::stat(Path("new").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_mode & 07777, 0600U);
  EXPECT_EQ(stat.st_size, 0);
}

TEST_F(WritableFileDeviceTest, ResizingMakesHolesAndCuts) {
  const auto device = WritableFileDevice::Create(Path("new"));
  device->Resize(1 << 20);
  EXPECT_EQ(device->size(), 1U << 20);
  EXPECT_TRUE(device->ExtentAt(0, 1 << 20).is_hole);
  device->Write(512 << 10, Noise(4096, 3));
  const Extent hole = device->ExtentAt(0, 1 << 20);
  EXPECT_TRUE(hole.is_hole);
  EXPECT_FALSE(device->ExtentAt(512 << 10, 1 << 20).is_hole);
  device->Resize(1000);
  EXPECT_EQ(fs::file_size(Path("new")), 1000U);
}

TEST_F(WritableFileDeviceTest, ExistingFileIsNotCreated) {
  WriteHostFile(Path("old"), "precious");
  EXPECT_THAT(
      ThrownText<UsageError>([&] { WritableFileDevice::Create(Path("old")); }),
      HasSubstr("exists already"));
  EXPECT_EQ(fs::file_size(Path("old")), 8U);
}

TEST_F(WritableFileDeviceTest, WhatIsNoFileOrBlockDeviceIsRefused) {
  fs::create_directory(Path("folder"));
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  for (const char* name : {"folder", "fifo"}) {
    EXPECT_THAT(
        ThrownText<UsageError>([&] { WritableFileDevice::Open(Path(name)); }),
        HasSubstr(name));
  }
  EXPECT_THAT(
      ThrownText<UsageError>([&] { WritableFileDevice::Open("/dev/null"); }),
      HasSubstr("character device"));
  EXPECT_THROW(WritableFileDevice::Open(Path("missing")), IoError);
  EXPECT_THROW(WritableFileDevice::Create(Path("no/such")), IoError);
}

TEST_F(WritableFileDeviceTest, WriterAndReaderKeepEachOtherOut) {
  WriteHostFile(Path("disk"), "content");
  {
    const auto writer = WritableFileDevice::Open(Path("disk"));
    EXPECT_THROW(
        FileDevice::Open(Path("disk"), FileDevice::Sharing::kExclusive),
        ImageLocked);
    EXPECT_THROW(WritableFileDevice::Open(Path("disk")), ImageLocked);
    EXPECT_NO_THROW(
        FileDevice::Open(Path("disk"), FileDevice::Sharing::kForced));
  }
  const auto reader =
      FileDevice::Open(Path("disk"), FileDevice::Sharing::kExclusive);
  EXPECT_THAT(
      ThrownText<ImageLocked>([&] { WritableFileDevice::Open(Path("disk")); }),
      HasSubstr("not open to writers"));
}

TEST_F(WritableFileDeviceTest, ImageThatQemuUsesIsRefusedNamingQemu) {
  const std::string disk = Path("disk.qcow2");
  RunTool({"qemu-img", "create", "-f", "qcow2", disk, "1M"});
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{}, std::vector<std::string>{"--read-only"}}) {
    std::vector<std::string> command = {"qemu-io", "-f", "qcow2"};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(disk);
    const BackgroundProgram qemu(command, "qemu-io>");
    const auto text =
        ThrownText<ImageLocked>([&] { WritableFileDevice::Open(disk); });
    EXPECT_THAT(text, HasSubstr("qemu-io (process"));
    EXPECT_THAT(text, testing::Not(HasSubstr("force-share")));
  }
}

TEST_F(WritableFileDeviceTest, QemuRefusesWhatIsOpenForWriting) {
  const std::string disk = Path("disk.qcow2");
  RunTool({"qemu-img", "create", "-f", "qcow2", disk, "1M"});
  const auto device = WritableFileDevice::Open(disk);
  const ProgramResult read = RunProgram({"qemu-img", "info", disk});
  EXPECT_NE(read.exit_code, 0);
  EXPECT_THAT(read.err, HasSubstr("lock"));
  EXPECT_EQ(RunProgram({"qemu-img", "info", "-U", disk}).exit_code, 0);
}

}  // namespace
}  // namespace pellucid
