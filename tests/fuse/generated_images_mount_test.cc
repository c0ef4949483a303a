// Images that the machine's QEMU makes here, mounted by the program and judged
// by what qemu-img reads.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "engine/block_device.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

// A file of the mount as a device, so that the engine's checks do for it.
class MountedFile : public BlockDevice {
 public:
  explicit MountedFile(const std::filesystem::path& path)
      : file_(path, O_RDONLY), size_(std::filesystem::file_size(path)) {}

  uint64_t size() const override { return size_; }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    while (!out.empty()) {
      const ssize_t n =
          pread(file_.fd(), out.data(), out.size(), static_cast<off_t>(offset));
      if (n <= 0) {
        throw std::system_error(n < 0 ? errno : EIO, std::generic_category());
      }
      out = out.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
  }

  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    const uint64_t data = Seek(offset, SEEK_DATA);
    const bool is_hole = data != offset;
    const uint64_t end = is_hole ? data : Seek(offset, SEEK_HOLE);
    return {.length = std::min(max_length, end - offset), .is_hole = is_hole};
  }

 private:
  uint64_t Seek(uint64_t offset, int whence) const {
    const off_t found = lseek(file_.fd(), static_cast<off_t>(offset), whence);
    if (found >= 0) return static_cast<uint64_t>(found);
    if (errno == ENXIO) return size_;  // No data from there on.
    throw std::system_error(errno, std::generic_category());
  }

  const OpenFile file_;
  const uint64_t size_;
};

class GeneratedImageMountTest
    : public ProgramTest,
      public ::testing::WithParamInterface<ImageVariant> {
 protected:
  QemuImages images_;
};

TEST_P(GeneratedImageMountTest, ReadsAsQemuReadsIt) {
  MakeVariant(GetParam(), images_);
  const Bytes expected = images_.Content("top.qcow2");
  std::vector<std::string> mount = {"mount", "--read-only"};
  for (const std::filesystem::path& key : images_.KeyFiles("top.qcow2")) {
    mount.insert(mount.end(), {"--key-file", key});
  }
  mount.insert(mount.end(), {images_.path("top.qcow2"), file()});
  ASSERT_NO_FATAL_FAILURE(MustRun(mount));
  {
    MountedFile mounted(file());
    // Before the kernel has read everything ahead.
    CheckRandomReads(mounted, expected, 200, 1);
    const Bytes content = ReadAll(mounted);
    EXPECT_EQ(FirstDifference(content, expected), "");
    const uint64_t holes = CheckExtents(mounted, content);
    EXPECT_EQ(holes, CheckExtents(*images_.Open("top.qcow2"), content));
  }
  MustRun({"umount", file()});
}

INSTANTIATE_TEST_SUITE_P(
    Product, GeneratedImageMountTest, ::testing::ValuesIn(AllVariants()),
    [](const ::testing::TestParamInfo<ImageVariant>& info) {
      return TestName(info.param);
    });

}  // namespace
}  // namespace pellucid::fuse
