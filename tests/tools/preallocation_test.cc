// `pellucid create --preallocation full`.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/tools/create_fixture.h"
#include "tests/tools/terminal_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kSize = uint64_t{8} << 20;
const Words kFull = {"--preallocation", "full"};

class PreallocationTest : public CreateTest {
 protected:
  // Takes all of its space, and reads as zeros.
  void ExpectFull(const Words& opening, const std::string& file) {
    struct stat status = {};
    ASSERT_EQ(stat((folder_ / file).c_str(), &status), 0);
    EXPECT_GE(static_cast<uint64_t>(status.st_blocks) * 512, kSize);
    const Bytes disk = Export(opening);
    EXPECT_EQ(disk.size(), kSize);
    EXPECT_EQ(std::ranges::count(disk, std::byte{0}),
              static_cast<ptrdiff_t>(kSize));
  }
};

TEST_F(PreallocationTest, EveryKindOfImageTakesItsSpaceAndReadsAsZeros) {
  MustCreate(kFastPbkdf2 + kFull + Words{"embedded.qcow2", "8M"});
  ExpectFull(kKey + Words{"embedded.qcow2"}, "embedded.qcow2");
  const nlohmann::json qcow2 = Info({"embedded.qcow2"})["qcow2"];
  EXPECT_EQ(qcow2["allocated_clusters"], qcow2["total_clusters"]);
  Run({"qemu-img", "check", "--object", "secret,id=s,file=key", "--image-opts",
       "driver=qcow2,encrypt.key-secret=s,file.filename=embedded.qcow2"});

  MustCreate(kFastArgon2 + kFull + Words{"--format", "raw", "volume", "8M"});
  ExpectFull(kKey + Words{"volume"}, "volume");

  MustCreate(kFastArgon2 + kFull +
             Words{"--detached-header", "hdr", "payload.qcow2", "8M"});
  ExpectFull(kKey + Words{"--header", "hdr", "payload.qcow2"}, "payload.qcow2");

  MustCreate(kFull +
             Words{"--encryption", "none", "--format", "raw", "plain", "8M"});
  ExpectFull({"plain"}, "plain");
}

TEST_F(PreallocationTest, OffIsTheDefault) {
  for (const Words& off : {Words{}, Words{"--preallocation", "off"}}) {
    MustCreate(kFastPbkdf2 + off + Words{"--force", "new.qcow2", "8M"});
    EXPECT_EQ(Info({"new.qcow2"})["qcow2"]["allocated_clusters"], 0);
  }
}

TEST_F(PreallocationTest, WhatItWouldDestroyIsRefused) {
  WriteHostFile(folder_ / "base", "base");
  ExpectRefused(kFull + Words{"--force", "new", "8M"}, "--force does not go");
  ExpectRefused(kFull + Words{"--backing", "base", "--backing-format", "raw",
                              "--encryption", "none", "new", "8M"},
                "--backing does not go");
  ExpectRefused(
      kFull + Words{"--payload-exists", "--detached-header", "hdr", "base"},
      "--payload-exists does not go");
  ExpectRefused({"--preallocation", "metadata", "new", "8M"},
                "--preallocation takes one of off, full, not 'metadata'");
}

// With what is likely to happen: there is no room.
TEST_F(PreallocationTest, WhatFailsLeavesNothingBehind) {
  const ProgramResult result = RunProgram(
      {"sh", "-c",
       "ulimit -f 6000; exec \"$0\" create --key-file key --pbkdf2-iterations "
       "1000 --preallocation full new.qcow2 8M",
       PELLUCID_PROGRAM},
      "", folder_.path());
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_THAT(result.err, HasSubstr("new.qcow2"));
  EXPECT_FALSE(Exists("new.qcow2"));
}

TEST_F(PreallocationTest, ProgressIsShownAndAnInterruptLeavesNothingBehind) {
  // Large enough to be still at work when the bar is there.
  ProgramOnTerminal program(
      Words{"env", "TERM=xterm", PELLUCID_PROGRAM, "create"} + kFastPbkdf2 +
          kFull + Words{"new.qcow2", "64G"},
      folder_.path());
  program.WaitFor("iB of 64 GiB, ");
  program.WaitFor(" left");
  program.Signal(SIGINT);
  EXPECT_EQ(program.WaitForEnd(), 128 + SIGINT);
  EXPECT_FALSE(Exists("new.qcow2"));
}

}  // namespace
}  // namespace pellucid
