// A limit on the size of files (ulimit -f) that is below the size of the disk.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <memory>
#include <utility>

#include "tests/fuse/mount_fixture.h"
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

}  // namespace
}  // namespace pellucid::fuse
