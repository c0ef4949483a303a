// Random operations on a mounted file against a model of it in memory, in the
// manner of fsx.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/fuse/mount_fixture.h"
#include "tests/fuse/writable_model_device.h"

namespace pellucid::fuse {
namespace {

constexpr uint64_t kSize = 1'000'123;
constexpr uint64_t kGreatestLength = 40'000;
constexpr int kOperations = 100'000;

class ExerciserTest
    : public MountTest,
      public ::testing::WithParamInterface<std::tuple<MountpointKind, bool>> {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(MountTest::SetUp());
    set_kernel_writeback(std::get<1>(GetParam()));
    auto device = std::make_unique<WritableModelDevice>(disk_);
    WritableDevice* const writable = device.get();
    ASSERT_NO_FATAL_FAILURE(Mount(MountedDevice(std::move(device), writable),
                                  std::get<0>(GetParam()), ""));
    Open();
  }
  void Open() {
    buffered_ = std::make_unique<OpenFile>(disk(), O_RDWR);
    direct_ = std::make_unique<OpenFile>(disk(), O_RDWR | O_DIRECT);
    ASSERT_GE(direct_->fd(), 0);
    memory_ = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED,
                   buffered_->fd(), 0);
    ASSERT_NE(memory_, MAP_FAILED);
  }
  void Close() {
    munmap(memory_, kSize);
    buffered_.reset();
    direct_.reset();
  }
  std::byte* mapped(uint64_t offset) {
    return static_cast<std::byte*>(memory_) + offset;
  }
  // Does one random operation; false if it failed or what it saw is wrong.
  bool Step() {
    const uint64_t offset = random_() % kSize;
    const uint64_t length =
        1 + random_() % std::min(kGreatestLength, kSize - offset);
    const auto wanted = static_cast<ssize_t>(length);
    const auto place = static_cast<off_t>(offset);
    const auto range = model_.begin() + static_cast<ptrdiff_t>(offset);
    buffer_.resize(length);
    const unsigned kind = static_cast<unsigned>(random_() % 100);
    const int fd = random_() % 3 == 0 ? direct_->fd() : buffered_->fd();
    if (kind < 30) {
      return pread(fd, buffer_.data(), length, place) == wanted &&
             std::equal(buffer_.begin(), buffer_.end(), range);
    }
    if (kind < 40) {
      return std::memcmp(mapped(offset), &*range, length) == 0;
    }
    if (kind < 80) {
      const uint64_t seed = random_();
      for (uint64_t i = 0; i < length; ++i) {
        buffer_[i] = static_cast<std::byte>(seed >> (i % 7 * 8));
      }
      std::ranges::copy(buffer_, range);
      if (kind < 70) return pwrite(fd, buffer_.data(), length, place) == wanted;
      std::ranges::copy(buffer_, mapped(offset));
      return true;
    }
    if (kind < 92) {
      std::fill_n(range, length, std::byte{0});
      const int mode = kind < 86   ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                       : kind < 89 ? FALLOC_FL_ZERO_RANGE
                                   : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
      return fallocate(fd, mode, place, wanted) == 0;
    }
    if (kind < 95) return fdatasync(fd) == 0;
    if (kind < 97) return ftruncate(fd, 0) == 0;
    if (kind < 98) return msync(memory_, kSize, MS_SYNC) == 0;
    Close();
    Open();
    return lseek(buffered_->fd(), 0, SEEK_END) == static_cast<off_t>(kSize);
  }

  SharedDisk disk_{kSize};
  std::vector<std::byte> model_ = std::vector<std::byte>(kSize);
  std::vector<std::byte> buffer_;
  std::mt19937_64 random_{7};
  std::unique_ptr<OpenFile> buffered_;
  std::unique_ptr<OpenFile> direct_;
  void* memory_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(
    , ExerciserTest,
    ::testing::Combine(::testing::Values(MountpointKind::kFile,
                                         MountpointKind::kDirectory),
                       ::testing::Bool()),
    [](const auto& param) {
      return std::string(std::get<0>(param.param) == MountpointKind::kFile
                             ? "File"
                             : "Directory") +
             (std::get<1>(param.param) ? "Cached" : "Through");
    });

TEST_P(ExerciserTest, FileIsLikeItsModelAfterRandomOperations) {
  for (int i = 0; i < kOperations; ++i) {
    if (!Step()) {
      ADD_FAILURE() << "operation " << i << ", errno " << errno;
      break;
    }
  }
  Close();
  EXPECT_EQ(EndByUnmount(), 0) << Log();
  EXPECT_TRUE(std::ranges::equal(disk_.bytes(), model_));
  EXPECT_EQ(disk_.journal().writes_since_flush, 0U);
}

}  // namespace
}  // namespace pellucid::fuse
