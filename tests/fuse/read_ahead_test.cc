#include "fuse/read_ahead.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fuse/mount_table.h"
#include "tests/fuse/model_device.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

constexpr unsigned kKernelDefaultKib = 128;

class ReadAheadTest : public MountTest {
 protected:
  void MountDevice() {
    ASSERT_NO_FATAL_FAILURE(
        Mount(std::make_unique<ModelDevice>(1 << 20, std::vector<ByteRange>{}),
              MountpointKind::kDirectory, "ro"));
    const std::optional<MountTableEntry> entry = FindMount(mountpoint());
    ASSERT_TRUE(entry.has_value());
    setting_ =
        fmt::format("/sys/class/bdi/{}/read_ahead_kb", entry->device_number);
  }

  unsigned Kib() const {
    unsigned kib = 0;
    std::ifstream(setting_) >> kib;
    return kib;
  }

  bool MayBeSet() const { return access(setting_.c_str(), W_OK) == 0; }

  std::string setting_;
};

TEST_F(ReadAheadTest, OpeningTheFileRaisesItWhereThatIsAllowed) {
  MountDevice();
  EXPECT_EQ(Kib(), kKernelDefaultKib);
  const OpenFile file(disk(), O_RDONLY);
  ASSERT_GE(file.fd(), 0);
  EXPECT_EQ(Kib(), MayBeSet() ? kReadAheadKib : kKernelDefaultKib);
}

TEST_F(ReadAheadTest, WhatTheAdministratorHasSetStays) {
  MountDevice();
  std::ofstream(setting_) << "64\n";
  const OpenFile file(disk(), O_RDONLY);
  ASSERT_GE(file.fd(), 0);
  EXPECT_EQ(Kib(), MayBeSet() ? 64 : kKernelDefaultKib);
}

}  // namespace
}  // namespace pellucid::fuse
