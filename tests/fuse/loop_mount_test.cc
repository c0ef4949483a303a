// The file systems inside an image, mounted by the kernel from the plain file.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

using LoopMountTest = ProgramTest;

TEST_F(LoopMountTest, AFileSystemInTheImageIsMountedReadOnly) {
  if (geteuid() != 0) {
    ASSERT_EQ(getenv("CI"), nullptr) << "loop devices need root";
    GTEST_SKIP() << "loop devices need root";
  }
  std::filesystem::create_directory(folder() / "files");
  std::filesystem::create_directory(folder() / "mnt");
  const Bytes content = Noise(3 << 20, 7);
  WriteHostFile(folder() / "files" / "evidence", content);
  RunTool({"truncate", "-s", "32M", "plain.raw"}, "", folder());
  RunTool({"mkfs.ext4", "-q", "-d", "files", "plain.raw"}, "", folder());
  RunTool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "plain.raw",
           "disk.qcow2"},
          "", folder());
  MustRun({"mount", "--read-only", "disk.qcow2", "directory"});
  RunTool({"mount", "-o", "loop,ro", "directory/disk", "mnt"}, "", folder());
  const Bytes seen = ReadHostFile(folder() / "mnt" / "evidence");
  RunTool({"umount", "mnt"}, "", folder());
  MustRun({"umount", "directory"});
  EXPECT_EQ(seen, content);
}

}  // namespace
}  // namespace pellucid::fuse
