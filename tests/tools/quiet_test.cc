// What is printed besides what was asked for: on a terminal, in a pipe, and
// with
// --quiet.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/tools/create_fixture.h"
#include "tests/tools/terminal_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class QuietTest : public CreateTest {
 protected:
  QuietTest() {
    MakeImage("disk.qcow2");
    KeyFile("another", "spare");
  }

  // What the terminal shows of `pellucid` with `words`.
  std::string OnTerminal(const Words& words) {
    ProgramOnTerminal program(
        Words{"env", "TERM=xterm", PELLUCID_PROGRAM} + words, folder_.path());
    EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
    return program.screen();
  }

  // Each command that says something of its own, in an order in which all
  // succeed.
  const std::vector<Words> commands_ = {
      {"check", "disk.qcow2"},
      Words{"create"} + kFastPbkdf2 + Words{"new.qcow2", "8M"},
      {"export", "--key-file", "key", "disk.qcow2", "copy.raw"},
      {"import", "--key-file", "key", "copy.raw", "disk.qcow2"},
      {"header", "backup", "disk.qcow2", "backup"},
      {"header", "restore", "disk.qcow2", "backup"},
      {"key", "add", "--key-file", "key", "--new-key-file", "spare",
       "--pbkdf2-iterations", "1000", "disk.qcow2"},
      {"key", "remove", "--key-file", "spare", "disk.qcow2"},
      {"resize", "disk.qcow2", "+1M", "--key-file", "key"},
      {"snapshot", "create", "disk.qcow2", "one"},
      {"snapshot", "apply", "disk.qcow2", "one"},
      {"snapshot", "delete", "disk.qcow2", "one"},
  };
};

TEST_F(QuietTest, NothingIsPrintedInAPipe) {
  for (const Words& words : commands_) {
    const ProgramResult result = RunPellucid(words + Words{"--quiet"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out + result.err, IsEmpty()) << words[0];
  }
}

TEST_F(QuietTest, NothingIsPrintedOnATerminal) {
  for (const Words& words : commands_) {
    EXPECT_THAT(OnTerminal(words + Words{"--quiet"}), IsEmpty()) << words[0];
  }
}

TEST_F(QuietTest, WhatWasAskedForIsPrintedAllTheSame) {
  const std::vector<Words> asking = {
      {"check", "--json", "disk.qcow2"},
      {"export", "--key-file", "key", "--hash", "sha256", "disk.qcow2",
       "/dev/null"},
      {"key", "list", "disk.qcow2"},
      {"snapshot", "list", "--json", "disk.qcow2"}};
  for (const Words& words : asking) {
    const ProgramResult quiet = RunPellucid(words + Words{"--quiet"});
    EXPECT_EQ(quiet.exit_code, 0) << quiet.err;
    EXPECT_THAT(quiet.out, Not(IsEmpty())) << words[0];
    EXPECT_EQ(quiet.out, RunPellucid(words).out);
  }
}

// 10 GiB in clusters of 512 bytes: so many L2 tables to look at that the bar
// appears, though they are all in one hole of the file. Their refcounts are
// wrong.
void MakeManyTables(const std::filesystem::path& path) {
  constexpr uint64_t kCluster = 512;
  constexpr uint64_t kTables = 327680;
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512",
           path, "10G"});
  Bytes image = ReadHostFile(path);
  image.resize((image.size() + kCluster - 1) / kCluster * kCluster);
  const uint64_t l1 = LoadNumber(image, 40, 8);
  const uint64_t first = image.size();
  for (uint64_t i = 0; i < kTables; ++i) {
    StoreNumber(image, l1 + i * 8, 8, first + i * kCluster);
  }
  WriteHostFile(path, image);
  std::filesystem::resize_file(path, first + kTables * kCluster);
}

// With the rate and the time that is left; and the line is gone in the end.
TEST_F(QuietTest, CheckShowsProgressOnATerminalOnly) {
  MakeManyTables(folder_ / "large.qcow2");
  ProgramOnTerminal check(
      {"env", "TERM=xterm", PELLUCID_PROGRAM, "check", "large.qcow2"},
      folder_.path());
  EXPECT_EQ(check.WaitForEnd(), 2);
  EXPECT_THAT(
      check.screen(),
      testing::ContainsRegex("\r +[0-9]+% .*[KMG]iB of .*iB/s, [-:0-9]+ left"));
  EXPECT_THAT(check.screen(), HasSubstr("\r\x1b[Kcorruption: "));
  ProgramOnTerminal dumb(
      {"env", "TERM=dumb", PELLUCID_PROGRAM, "check", "large.qcow2"},
      folder_.path());
  EXPECT_EQ(dumb.WaitForEnd(), 2);
  EXPECT_THAT(dumb.screen(), StartsWith("corruption: "));
  ProgramOnTerminal quiet({PELLUCID_PROGRAM, "check", "--quiet", "large.qcow2"},
                          folder_.path());
  EXPECT_EQ(quiet.WaitForEnd(), 2);
  EXPECT_THAT(quiet.screen(), IsEmpty());
  const ProgramResult piped = RunPellucid({"check", "large.qcow2"});
  EXPECT_EQ(piped.exit_code, 2);
  EXPECT_THAT(piped.err, IsEmpty());
}

// A line that appears and goes within a moment disturbs more than it tells.
TEST_F(QuietTest, WhatIsDoneAtOnceShowsNoBar) {
  EXPECT_THAT(OnTerminal({"check", "disk.qcow2"}),
              StartsWith("disk.qcow2: no errors were found"));
}

class SizesTest : public CreateTest {};

TEST_F(SizesTest, SuffixesAreTakenWhereverBytesAre) {
  WriteHostFile(folder_ / "key", std::string(4096, 'k') + "secret" + "tail");
  MustCreate({"--format", "raw", "--key-file", "key", "--key-file-offset",
              "4KiB", "--key-file-size", "6", "--sector-size", "4K",
              "--argon2-time", "4", "--argon2-memory", "1MiB", "--argon2-cpus",
              "1", "new", "8MiB"});
  const nlohmann::json luks = Info({"new"})["luks"];
  EXPECT_EQ(luks["sector_size"], 4096);
  EXPECT_EQ(luks["keyslots"][0]["memory_kib"], 1024);
  EXPECT_EQ(Info({"new"})["virtual_size"], 8 << 20);
  WriteHostFile(folder_ / "secret", "secret");
  EXPECT_EQ(RunPellucid({"export", "--key-file", "secret", "--offset", "1MiB",
                         "--length", "4K", "new", "part"})
                .exit_code,
            0);
  EXPECT_EQ(std::filesystem::file_size(folder_ / "part"), 4096u);
}

}  // namespace
}  // namespace pellucid
