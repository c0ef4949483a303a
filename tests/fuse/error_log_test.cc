#include "fuse/error_log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/engine/host_files_fixture.h"
#include "tests/fuse/foreground_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using ::testing::EndsWith;

TEST(ErrorLogTest, ControlCharactersBecomeVisible) {
  MountAttendant attendant({"/nowhere", MountpointKind::kFile});
  ErrorLog log(LogTarget::kStandardError, attendant);
  testing::internal::CaptureStderr();
  log.Report("read of \x9fu\r", "a\nb\x1b[31m: damaged");
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "pellucid: read of \x9fu\\x0d: a\\x0ab\\x1b[31m: damaged\n");
}

class HostileNameTest : public ProgramTest {};

TEST_F(HostileNameTest, OfABackingFileDoesNotDriveTheTerminalOfAMount) {
  constexpr size_t kSize = 1 << 20;
  const std::string name = "b\x1b]0;owned\x07\n.raw";
  const fs::path base = MakeFile(name, std::string(kSize, 'x'));
  MustRun({"create", "--quiet", "--encryption", "none", "--backing", name,
           "--backing-format", "raw", "image"});
  ForegroundMount mount({"mount", "--read-only", folder() / "image"}, file(),
                        folder() / "log");
  for (int i = 0; i < 5000 && fs::file_size(file()) != kSize; ++i) {
    usleep(2'000);
  }
  fs::resize_file(base, 4096);
  {
    const OpenFile plain(file(), O_RDONLY);
    char byte = 0;
    EXPECT_EQ(pread(plain.fd(), &byte, 1, kSize / 2), -1);
  }
  EXPECT_EQ(mount.End(SIGTERM), 0);
  std::ifstream log(folder() / "log");
  EXPECT_THAT(std::string(std::istreambuf_iterator<char>(log), {}),
              EndsWith("/b\\x1b]0;owned\\x07\\x0a.raw: ends at offset 524288; "
                       "it was longer when it was opened\n"));
}

}  // namespace
}  // namespace pellucid::fuse
