// lseek(2) beside programs that write and close: each may wait for the other
// only as long as it works.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "tests/fuse/mount_fixture.h"
#include "tests/fuse/writable_model_device.h"

namespace pellucid::fuse {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kSize = 4 << 20;
constexpr std::chrono::seconds kDuration{2};
constexpr std::chrono::seconds kGreatestWait{2};

using WrittenSeekTest = MountTest;

TEST_F(WrittenSeekTest, SeekersAndClosingWritersDoNotStopEachOther) {
  SharedDisk disk(kSize);
  auto device = std::make_unique<WritableModelDevice>(disk);
  WritableDevice* const writable = device.get();
  ASSERT_NO_FATAL_FAILURE(Mount(MountedDevice(std::move(device), writable),
                                MountpointKind::kFile, "rw"));
  const auto deadline = steady_clock::now() + kDuration;
  std::atomic<steady_clock::rep> longest = 0;
  std::atomic<unsigned> failures = 0;
  const auto repeat = [&](const auto& action) {
    while (steady_clock::now() < deadline) {
      const auto start = steady_clock::now();
      if (!action()) ++failures;
      const auto took = (steady_clock::now() - start).count();
      auto so_far = longest.load();
      while (took > so_far && !longest.compare_exchange_weak(so_far, took)) {
      }
    }
  };
  std::vector<std::jthread> threads;
  for (off_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      const std::vector<std::byte> bytes(4096, std::byte{1});
      repeat([&] {
        const int fd = open(this->disk().c_str(), O_RDWR | O_CLOEXEC);
        const ssize_t written =
            pwrite(fd, bytes.data(), bytes.size(), i * 8192);
        return close(fd) == 0 && written == 4096;
      });
    });
    threads.emplace_back([&] {
      const OpenFile file(this->disk(), O_RDONLY);
      // Whether the page is known below by now is a matter of luck.
      repeat([&] {
        return lseek(file.fd(), 0, SEEK_DATA) >= 0 || errno == ENXIO;
      });
    });
  }
  threads.clear();
  EXPECT_LT(steady_clock::duration(longest), kGreatestWait);
  EXPECT_EQ(failures, 0U);
  EXPECT_EQ(EndByUnmount(), 0) << Log();
}

}  // namespace
}  // namespace pellucid::fuse
