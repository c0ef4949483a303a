// What a host file device does when its host fails to flush. The host is a
// mount of our own, whose device fails when it is told to.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <future>
#include <memory>
#include <string>
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
using ::testing::UnorderedElementsAre;

class HostFlushTest : public MountTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(MountTest::SetUp());
    auto device = std::make_unique<WritableModelDevice>(disk_);
    WritableDevice* const writable = device.get();
    ASSERT_NO_FATAL_FAILURE(Mount(MountedDevice(std::move(device), writable),
                                  MountpointKind::kDirectory, "rw"));
  }

  SharedDisk disk_{1 << 20};
};

TEST_F(HostFlushTest, AFlushThatTheHostFailedIsTheLast) {
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

// The host tells a failure once. Whoever has asked for a flush meanwhile must
// not take that for a success of his own.
TEST_F(HostFlushTest, ConcurrentFlushesAreAllToldOfAFailure) {
  {
    const auto file = WritableFileDevice::Open(disk());
    const auto flush = [&] { file->Flush(); };
    file->Write(0, std::vector<std::byte>(5000, std::byte{1}));
    flush();
    file->Write(0, std::vector<std::byte>(5000, std::byte{2}));
    disk_.journal().flush_milliseconds = 300;
    disk_.journal().next_flush_errno = EIO;
    std::vector<std::future<std::string>> flushes;
    for (int i = 0; i < 3; ++i) {
      flushes.push_back(std::async(std::launch::async,
                                   [&] { return ThrownText<IoError>(flush); }));
    }
    std::vector<std::string> texts;
    for (auto& running : flushes) texts.push_back(running.get());
    EXPECT_THAT(texts, UnorderedElementsAre(HasSubstr("cannot flush it: "),
                                            HasSubstr("open it again"),
                                            HasSubstr("open it again")));
    disk_.journal().flush_milliseconds = 0;
  }
  EndByUnmount();
}

}  // namespace
}  // namespace pellucid::fuse
