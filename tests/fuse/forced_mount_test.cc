// `pellucid mount --force-share`: the image may change while it is mounted.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "tests/engine/host_files_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

class ForcedMountTest : public ProgramTest {
 protected:
  static constexpr size_t kSize = 1 << 20;

  // Changes bytes that the kernel has seen through the mount.
  void Overwrite(char byte) const {
    const OpenFile image(folder() / "image", O_WRONLY);
    const std::string bytes(kSize, byte);
    ASSERT_EQ(pwrite(image.fd(), bytes.data(), kSize, 0),
              static_cast<ssize_t>(kSize));
  }
  // What somebody who opens the file now reads at its end.
  char LastByte() const {
    const OpenFile file(disk(), O_RDONLY);
    char byte = 0;
    EXPECT_EQ(pread(file.fd(), &byte, 1, kSize - 1), 1);
    return byte;
  }
};

TEST_F(ForcedMountTest, WhoeverOpensTheFileSeesWhatHasBeenWrittenSince) {
  MakeFile("image", std::string(kSize, 'a'));
  ASSERT_NO_FATAL_FAILURE(MustRun(
      {"mount", "--force-share", "--format", "raw", "image", "directory"}));
  EXPECT_EQ(LastByte(), 'a');
  Overwrite('b');
  EXPECT_EQ(LastByte(), 'b');
  MustRun({"umount", "directory"});
}

// Shows that the test above can fail: nobody should write here, so that the
// kernel may keep what it has read.
TEST_F(ForcedMountTest, OtherMountsKeepWhatTheyHaveRead) {
  MakeFile("image", std::string(kSize, 'a'));
  ASSERT_NO_FATAL_FAILURE(MustRun(
      {"mount", "--read-only", "--format", "raw", "image", "directory"}));
  EXPECT_EQ(LastByte(), 'a');
  Overwrite('b');
  EXPECT_EQ(LastByte(), 'a');
  MustRun({"umount", "directory"});
}

}  // namespace
}  // namespace pellucid::fuse
