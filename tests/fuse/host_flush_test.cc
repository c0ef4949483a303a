// What a host file device does when its host fails to flush. The host is a
// mount of our own, whose device fails when it is told to.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/writable_file_device.h"
#include "tests/engine/thrown_text.h"
#include "tests/fuse/mount_fixture.h"
#include "tests/fuse/writable_model_device.h"

namespace pellucid::fuse {
namespace {

using ::testing::HasSubstr;

class HostFlushTest : public MountTest {
 protected:
  SharedDisk disk_{1 << 20};
};

TEST_F(HostFlushTest, AFlushThatTheHostFailedIsTheLast) {
  auto device = std::make_unique<WritableModelDevice>(disk_);
  WritableDevice* const writable = device.get();
  ASSERT_NO_FATAL_FAILURE(Mount(MountedDevice(std::move(device), writable),
                                MountpointKind::kDirectory, "rw"));
  {
    const auto file = WritableFileDevice::Open(disk());
    const auto flush = [&] { file->Flush(); };
    file->Write(0, std::vector<std::byte>(5000, std::byte{1}));
    flush();
    file->Write(0, std::vector<std::byte>(5000, std::byte{2}));
    disk_.journal().flush_errno = EIO;
    EXPECT_THAT(ThrownText<IoError>(flush), HasSubstr("cannot flush it: "));
    // The host says that all is well again; what it has lost it does not say.
    disk_.journal().flush_errno = 0;
    const uint64_t flushes = disk_.journal().flushes;
    EXPECT_THAT(ThrownText<IoError>(flush), HasSubstr("open it again"));
    EXPECT_EQ(disk_.journal().flushes, flushes);
  }
  EXPECT_NO_THROW(WritableFileDevice::Open(disk())->Flush());
  EndByUnmount();
}

}  // namespace
}  // namespace pellucid::fuse
