// No command that only reads changes anything of an image, also on a file
// system that notes every access.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

class EvidenceConstancyTest : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    ASSERT_EQ(geteuid(), 0U) << "loop devices need root";
    std::filesystem::create_directory(evidence());
    Tool({"truncate", "-s", "64M", "ext4"});
    Tool({"mkfs.ext4", "-q", "ext4"});
    Tool({"mount", "-o", "loop,strictatime", "ext4", "evidence"});
    MakeFile("key", "open sesame");
    Tool({"truncate", "-s", "16M", "plain.raw"});
    RunTool({"sfdisk", "--quiet", "plain.raw"},
            "label: gpt\nsize=4MiB, name=\"a\"\nsize=4MiB\n", folder());
    Tool({"dd", "if=/dev/urandom", "of=plain.raw", "bs=1M", "seek=1", "count=3",
          "conv=notrunc", "status=none"});
    Tool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "--object",
          "secret,id=s,file=key", "-o",
          "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
          "plain.raw", image()});
    Tool({"qemu-img", "snapshot", "--object", "secret,id=s,file=key",
          "--image-opts", "-c", "first",
          "driver=qcow2,file.filename=" + image() +
              ",encrypt.format=luks,encrypt.key-secret=s"});
    Tool({"setfattr", "-n", "user.case", "-v", "42", image()});
    Tool({"sync", "-f", image()});
  }
  void TearDown() override {
    ProgramTest::TearDown();
    Tool({"umount", "evidence"});
  }

  std::filesystem::path evidence() const { return folder() / "evidence"; }
  std::string image() const { return (evidence() / "disk.qcow2").string(); }
  std::string Tool(const std::vector<std::string>& argv) {
    return RunTool(argv, "", folder());
  }
  // Times in nanoseconds, length, blocks, owner, mode, links, xattrs.
  std::string Status() {
    return Tool(
               {"stat", "--format=%x %y %z %w %s %b %u %g %a %h %i", image()}) +
           Tool({"getfattr", "--dump", "--match=-", "--absolute-names",
                 image()});
  }
  // Reads the image, which is an access.
  std::string Hash() { return Tool({"sha256sum", image()}); }

  void ExpectUnchangedBy(const std::vector<std::string>& arguments) {
    const std::string hash = Hash();
    const std::string before = Status();
    MustRunQuietly(arguments);
    EXPECT_EQ(Status(), before) << arguments[0];
    EXPECT_EQ(Hash(), hash) << arguments[0];
  }
  void MustRunQuietly(const std::vector<std::string>& arguments) {
    const ProgramResult result = Pellucid(arguments);
    ASSERT_EQ(result.exit_code, 0) << arguments[0] << ": " << result.err;
  }
};

TEST_F(EvidenceConstancyTest, ReadingTheImageIsNoted) {
  // Otherwise the tests below could not fail.
  const std::string before = Status();
  Hash();
  EXPECT_NE(Status(), before);
}

TEST_F(EvidenceConstancyTest, CommandsThatReadChangeNothing) {
  ExpectUnchangedBy({"info", image()});
  ExpectUnchangedBy({"info", "--json", image()});
  ExpectUnchangedBy({"check", image()});
  ExpectUnchangedBy({"map", image()});
  ExpectUnchangedBy({"snapshot", "list", image()});
  ExpectUnchangedBy({"key", "list", image()});
  ExpectUnchangedBy(
      {"export", "--key-file", "key", image(), folder() / "copy"});
  ExpectUnchangedBy({"export", "--key-file", "key", "--snapshot", "first",
                     image(), folder() / "copy of first"});
  ExpectUnchangedBy({"export", "--key-file", "key", "--unallocated", "--list",
                     folder() / "list", image(), folder() / "unallocated"});
  ExpectUnchangedBy({"header", "backup", image(), folder() / "header.backup"});
  ExpectUnchangedBy({"report", "--json", "--output", folder() / "page.html",
                     "--hash", "sha256", "--key-file", "key", image()});
}

TEST_F(EvidenceConstancyTest, AMountWhoseViewsAreReadChangesNothing) {
  const std::string hash = Hash();
  const std::string before = Status();
  MustRun({"mount", "--read-only", "--key-file", "key", image(), "directory"});
  const std::string seen = Tool({"find", "directory", "-type", "f"});
  for (const char* file :
       {"directory/partitions/2", "directory/snapshots/first/partitions/1"}) {
    EXPECT_THAT(seen, testing::HasSubstr(file));
  }
  Tool({"tar", "--create", "--file=all.tar", "directory"});
  EXPECT_EQ(Status(), before);
  MustRun({"umount", "directory"});
  EXPECT_EQ(Status(), before);
  EXPECT_EQ(Hash(), hash);
}

}  // namespace
}  // namespace pellucid::fuse
