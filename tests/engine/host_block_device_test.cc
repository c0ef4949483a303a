// Images on a block device of the host, which has the size that it has.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "engine/image_snapshots.h"
#include "engine/new_file.h"
#include "engine/open_image.h"
#include "engine/resize_image.h"
#include "engine/writable_file_device.h"
#include "tests/engine/crash_judge.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kDeviceSize = 16 * kMiB;

// A block device over a file, which needs root.
class HostBlockDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) {
      ASSERT_EQ(getenv("CI"), nullptr) << "loop devices need root";
      GTEST_SKIP() << "loop devices need root";
    }
    WriteHostFile(folder_ / "disk", Bytes(kDeviceSize));
    std::string name =
        RunTool({"losetup", "--find", "--show", folder_ / "disk"});
    name.pop_back();  // The end of the line.
    device_ = name;
  }
  void TearDown() override {
    // If a test that failed has left it.
    umount2((folder_ / "mnt").c_str(), MNT_DETACH);
    if (!device_.empty()) RunTool({"losetup", "--detach", device_});
  }

  // An image of `size` bytes on the device.
  void MakeQcow2(uint64_t size) const {
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
             "cluster_size=65536", device_, std::to_string(size)});
  }
  OpenedImage OpenToWrite() const {
    OpenOptions options;
    options.image = device_;
    options.writable = true;
    KnownPassphrases none;
    return OpenImage(options, none);
  }
  Bytes Content(const std::string& snapshot = "") const {
    OpenOptions options;
    options.image = device_;
    options.snapshot = snapshot;
    return ReadAll(*OpenDevice(options));
  }
  SizeChange Resize(const NewSize& size) const {
    OpenOptions options;
    options.image = device_;
    KnownPassphrases none;
    return ResizeImage(options, size, none);
  }
  void ExpectClean() const {
    EXPECT_EQ(QemuCheck({"-f", "qcow2", device_.native()},
                        /*leaks_allowed=*/false),
              "");
  }

  ScratchFolder folder_;
  fs::path device_;
};

TEST_F(HostBlockDeviceTest, DeviceThatTheHostUsesIsOnlyRead) {
  { EXPECT_EQ(WritableFileDevice::Open(device_)->size(), kDeviceSize); }
  RunTool({"mkfs.ext4", "-q", device_});
  fs::create_directory(folder_ / "mnt");
  RunTool({"mount", device_, folder_ / "mnt"});
  const Bytes before = ReadHostFile(folder_ / "disk");
  EXPECT_THAT(
      ThrownText<ImageLocked>([&] { WritableFileDevice::Open(device_); }),
      AllOf(HasSubstr(device_.native()),
            HasSubstr("the host uses this block device itself"),
            HasSubstr("--read-only")));
  // To overwrite it is no better.
  EXPECT_THROW(NewFile(device_, true), ImageLocked);
  EXPECT_THROW(OpenToWrite(), ImageLocked);
  EXPECT_EQ(ReadHostFile(folder_ / "disk"), before);
  EXPECT_EQ(FileDevice::Open(device_, FileDevice::Sharing::kExclusive)->size(),
            kDeviceSize);
  RunTool({"umount", folder_ / "mnt"});
  EXPECT_NO_THROW(WritableFileDevice::Open(device_));
}

TEST_F(HostBlockDeviceTest, ItsEndStaysWhereItIs) {
  const auto device = WritableFileDevice::Open(device_);
  EXPECT_FALSE(device->can_resize());
  EXPECT_THROW(device->Resize(kDeviceSize / 2), IoError);
  const Bytes data = Noise(4096, 1);
  EXPECT_THROW(device->Write(kDeviceSize, data), IoError);
  EXPECT_EQ(device->size(), kDeviceSize);
  device->Write(kDeviceSize - 4096, data);
  device->FreeSpace(0, 4096);
  device->Flush();
  Bytes found(4096);
  device->Read(kDeviceSize - 4096, found);
  EXPECT_EQ(found, data);
}

TEST_F(HostBlockDeviceTest, SnapshotsAreMadeAppliedAndDeleted) {
  MakeQcow2(4 * kMiB);
  const Bytes first = Noise(kMiB, 1);
  const Bytes second = Noise(kMiB, 2);
  const auto write = [&](const Bytes& data) {
    const OpenedImage image = OpenToWrite();
    image.writable->Write(kMiB + 4096, data);
    image.writable->Flush();
  };
  const auto change = [&](auto change_snapshots) {
    ImageSnapshots snapshots(device_);
    change_snapshots(snapshots);
  };
  write(first);
  const Bytes with_first = Content();
  change([](ImageSnapshots& snapshots) { snapshots.Create("monday"); });
  ExpectClean();
  write(second);
  const Bytes with_second = Content();
  EXPECT_NE(with_second, with_first);
  EXPECT_EQ(Content("monday"), with_first);
  change([](ImageSnapshots& snapshots) { snapshots.Create("tuesday"); });
  change([](ImageSnapshots& snapshots) { snapshots.Apply("monday"); });
  ExpectClean();
  EXPECT_EQ(Content(), with_first);
  EXPECT_EQ(Content("tuesday"), with_second);
  change([](ImageSnapshots& snapshots) { snapshots.Delete("tuesday"); });
  change([](ImageSnapshots& snapshots) { snapshots.Delete("monday"); });
  ExpectClean();
  EXPECT_EQ(Content(), with_first);
  EXPECT_EQ(fs::file_size(folder_ / "disk"), kDeviceSize);
}

TEST_F(HostBlockDeviceTest, SnapshotForWhichThereIsNoRoomChangesNothing) {
  MakeQcow2(32 * kMiB);
  {
    // As much as goes in, cluster by cluster.
    const OpenedImage image = OpenToWrite();
    uint64_t written = 0;
    EXPECT_THROW(
        for (; written < 32 * kMiB; written += 64 << 10) {
          image.writable->Write(written, Noise(64 << 10, written));
        },
        IoError);
    EXPECT_GT(written, 15 * kMiB);
    image.writable->Flush();
  }
  ExpectClean();
  const Bytes before = Content();
  EXPECT_THAT(
      ThrownText<IoError>([&] { ImageSnapshots(device_).Create("monday"); }),
      HasSubstr("No space left on device"));
  ExpectClean();
  EXPECT_EQ(Content(), before);
}

TEST_F(HostBlockDeviceTest, DiskOfAQcow2ImageGrowsAndShrinks) {
  MakeQcow2(4 * kMiB);
  const Bytes data = Noise(3 * kMiB, 1);
  {
    const OpenedImage image = OpenToWrite();
    image.writable->Write(0, data);
    image.writable->Flush();
  }
  // More than the device holds, and an L1 table that is longer.
  const uint64_t large = uint64_t{4} << 40;
  EXPECT_EQ(Resize({.bytes = large}).after, large);
  ExpectClean();
  {
    const OpenedImage image = OpenToWrite();
    ASSERT_EQ(image.writable->size(), large);
    image.writable->Write(large - 512, Noise(512, 2));
    image.writable->Flush();
  }
  ExpectClean();
  EXPECT_EQ(Resize({.bytes = 2 * kMiB, .may_shrink = true}).after, 2 * kMiB);
  ExpectClean();
  EXPECT_EQ(Content(), Bytes(data.begin(), data.begin() + 2 * kMiB));
  EXPECT_EQ(fs::file_size(folder_ / "disk"), kDeviceSize);
}

TEST_F(HostBlockDeviceTest, RawImageCannotBeResized) {
  for (const uint64_t size : {2 * kDeviceSize, kDeviceSize / 2}) {
    EXPECT_THAT(ThrownText<Unsupported>(
                    [&] { Resize({.bytes = size, .may_shrink = true}); }),
                HasSubstr("is a host block device, which has the size that the "
                          "host gives it"));
  }
}

}  // namespace
}  // namespace pellucid
