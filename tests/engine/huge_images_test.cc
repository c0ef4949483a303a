// Virtual sizes far beyond memory: opening time and memory stay bounded.

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <random>
#include <string>

#include "engine/open_image.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSlowdown = 20;  // Of sanitizers, in time and memory.
#else
constexpr int kSlowdown = 1;
#endif

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

class HugeImageTest : public testing::TestWithParam<const char*> {
 protected:
  HugeImageTest() {
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
             std::string("cluster_size=") + GetParam(), "disk.qcow2", "8T"},
            "", folder_.path());
    // Each into an L2 table of its own.
    std::string writes;
    for (int i = 0; i < kWrites; ++i) {
      writes += "write -q -P " + std::to_string(i % 255 + 1) + " " +
                std::to_string(i * kDistance) + " 512\n";
    }
    RunTool({"qemu-io", "-f", "qcow2", "disk.qcow2"}, writes, folder_.path());
  }

  static constexpr int kWrites = 600;
  static constexpr uint64_t kDistance =
      (uint64_t{8} << 40) / kWrites / 512 * 512;
  ScratchFolder folder_;
};

TEST_P(HugeImageTest, OpensSoonAndStaysSmall) {
  OpenOptions options;
  options.image = folder_ / "disk.qcow2";
  const uint64_t resident = ResidentBytes();
  const auto begin = std::chrono::steady_clock::now();
  const auto device = OpenDevice(options);
  const auto opened = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(device->size(), uint64_t{8} << 40);

  std::mt19937_64 random(1);
  Bytes sector(512);
  for (int read = 0; read < 20000; ++read) {
    const uint64_t i = random() % kWrites;
    device->Read(i * kDistance, sector);
    ASSERT_EQ(sector, Bytes(512, std::byte(i % 255 + 1))) << i;
    device->Read(random() % (device->size() - 512), sector);
  }
  EXPECT_LT(ResidentBytes() - resident, (uint64_t{64} << 20) * kSlowdown);
  EXPECT_LT(opened, std::chrono::milliseconds(100) * kSlowdown);
}

// 64 KiB is what QEMU makes.
INSTANTIATE_TEST_SUITE_P(ClusterSizes, HugeImageTest,
                         testing::Values("64k", "2M"));

}  // namespace
}  // namespace pellucid
