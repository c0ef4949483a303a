#include "tests/fuse/program_fixture.h"

#include <sys/mount.h>
#include <unistd.h>

namespace pellucid::fuse {

void ProgramTest::SetUp() {
  ASSERT_EQ(access("/dev/fuse", F_OK), 0)
      << "/dev/fuse is missing, so nothing can be mounted; these tests need "
         "the kernel's fuse module (modprobe fuse)";
  MakeFile("file", "");
  std::filesystem::create_directory(directory());
}

void ProgramTest::TearDown() {
  for (const std::filesystem::path& mountpoint : {file(), directory()}) {
    if (!IsMounted(mountpoint)) continue;
    ADD_FAILURE() << "a mount is left over at " << mountpoint;
    Pellucid({"umount", "--lazy", mountpoint.string()});
  }
}

ProgramResult ProgramTest::Pellucid(
    const std::vector<std::string>& arguments) const {
  std::vector<std::string> argv = {PELLUCID_PROGRAM};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return RunProgram(argv, "", folder());
}

void ProgramTest::MustRun(const std::vector<std::string>& arguments) const {
  const ProgramResult result = Pellucid(arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(result.out, "");
}

std::string ProgramTest::MakeFile(std::string_view name,
                                  std::string_view content) const {
  WriteHostFile(folder() / name, content);
  return (folder() / name).string();
}

}  // namespace pellucid::fuse
