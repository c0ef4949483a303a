// Who else may open an image that is mounted for writing, and whom we refuse.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/program_fixture.h"
#include "tests/fuse/writable_stack_fixture.h"

namespace pellucid::fuse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class WrittenLocksTest : public ProgramTest {
 protected:
  std::vector<std::string> Mount(const std::filesystem::path& mountpoint,
                                 const std::string& option = "--cache=none") {
    std::vector<std::string> arguments = stack_.OpenArguments();
    arguments.insert(arguments.begin(), {"mount", option});
    arguments.push_back(mountpoint);
    return arguments;
  }

  ProgramResult Qemu(std::vector<std::string> command) {
    const std::vector<std::string> image = stack_.QemuArguments();
    command.insert(command.end(), image.begin(), image.end());
    return RunProgram(command);
  }

  WritableStack stack_{FindStackKind("aes"), 1 << 20};
};

TEST_F(WrittenLocksTest, NobodyElseOpensWhatWeWrite) {
  ASSERT_NO_FATAL_FAILURE(MustRun(Mount(directory(), "--cache=writeback")));
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"qemu-io", "-c", "write 0 512"},
        {"qemu-io", "-r", "-c", "read 0 512"},
        {"qemu-img", "info"},
        {"qemu-img", "check"}}) {
    const ProgramResult result = Qemu(command);
    EXPECT_NE(result.exit_code, 0) << fmt::format("{}", command[0]);
    EXPECT_THAT(result.err, HasSubstr("lock"));
  }
  const ProgramResult daemon = RunProgram(
      {"timeout", "10", "qemu-storage-daemon", "--blockdev",
       fmt::format("driver=file,node-name=disk,filename={},read-only=on",
                   stack_.image().native()),
       "--blockdev", "driver=raw,node-name=raw,file=disk", "--nbd-server",
       fmt::format("addr.type=unix,addr.path={}", (folder() / "n").native()),
       "--export", "type=nbd,id=e,node-name=raw"});
  EXPECT_EQ(daemon.exit_code, 1) << daemon.err;
  EXPECT_THAT(daemon.err, HasSubstr("lock"));

  for (const char* option : {"--cache=none", "--read-only"}) {
    const ProgramResult second = Pellucid(Mount(file(), option));
    EXPECT_EQ(second.exit_code, static_cast<int>(ExitCode::kImageLocked));
    EXPECT_THAT(second.err, HasSubstr("pellucid"));
    EXPECT_FALSE(IsMounted(file()));
  }
  const std::string image = stack_.image().native();
  const ProgramResult info = Pellucid({"info", "--force-share", image});
  EXPECT_EQ(info.exit_code, 0) << info.err;
  MustRun({"umount", "directory"});
  EXPECT_EQ(Qemu({"qemu-img", "check"}).exit_code, 0);
}

TEST_F(WrittenLocksTest, ReadersShareAnImageAndKeepWritersOut) {
  ASSERT_NO_FATAL_FAILURE(MustRun(Mount(directory(), "--read-only")));
  ASSERT_NO_FATAL_FAILURE(MustRun(Mount(file(), "--read-only")));
  EXPECT_TRUE(ReadHostFile(disk()) == ReadHostFile(file()));
  MustRun({"umount", "file"});
  const ProgramResult writer = Pellucid(Mount(file()));
  EXPECT_EQ(writer.exit_code, static_cast<int>(ExitCode::kImageLocked));
  MustRun({"umount", "directory"});
}

TEST_F(WrittenLocksTest, WriterThatIsAlreadyThereIsNamed) {
  const BackgroundProgram holder(
      {"qemu-storage-daemon", "--blockdev",
       fmt::format("driver=raw,node-name=disk,file.driver=file,"
                   "file.filename={}",
                   stack_.image().native()),
       "--nbd-server",
       fmt::format("addr.type=unix,addr.path={}", (folder() / "n").native()),
       "--export", "type=nbd,id=e,node-name=disk,writable=on", "--chardev",
       "stdio,id=c", "--monitor", "chardev=c"},
      "QMP");
  const ProgramResult result = Pellucid(Mount(directory()));
  EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::kImageLocked));
  EXPECT_THAT(result.err, AllOf(HasSubstr("qemu-storage"),
                                HasSubstr(std::to_string(holder.pid()))));
  EXPECT_FALSE(IsMounted(directory()));
}

}  // namespace
}  // namespace pellucid::fuse
