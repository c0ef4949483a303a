// The program as a whole: subcommands, help, exit codes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

ProgramResult RunPellucid(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), PELLUCID_PROGRAM);
  return RunProgram(arguments);
}

// The message is one line that starts with the program's name.
void ExpectUsageError(const ProgramResult& result) {
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, StartsWith("pellucid: "));
  EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
  EXPECT_THAT(result.out, IsEmpty());
}

std::vector<std::string> Subcommands() {
  const std::string help = RunPellucid({"--help"}).out;
  std::vector<std::string> names;
  const std::regex line("\n  ([a-z]+) ");
  for (std::sregex_iterator match(help.begin(), help.end(), line), end;
       match != end; ++match) {
    names.push_back((*match)[1]);
  }
  return names;
}

std::vector<std::string> LongOptions(const std::string& help) {
  std::vector<std::string> options;
  const std::regex option("\n  (?:-[a-zA-Z], )?(--[a-z][a-z-]*)");
  for (std::sregex_iterator match(help.begin(), help.end(), option), end;
       match != end; ++match) {
    options.push_back((*match)[1]);
  }
  return options;
}

TEST(Program, HelpListsTheSubcommands) {
  const ProgramResult result = RunPellucid({"--help"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, IsEmpty());
  EXPECT_THAT(Subcommands(),
              testing::IsSupersetOf({"mount", "umount", "info", "export"}));
  EXPECT_EQ(RunPellucid({"-h"}).out, result.out);
}

TEST(Program, VersionIsANumber) {
  EXPECT_THAT(RunPellucid({"--version"}).out,
              testing::MatchesRegex("pellucid [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(Program, EverySubcommandHasHelpThatFitsATerminal) {
  for (const std::string& name : Subcommands()) {
    const ProgramResult result = RunPellucid({name, "--help"});
    EXPECT_EQ(result.exit_code, 0) << name;
    EXPECT_THAT(result.err, IsEmpty()) << name;
    EXPECT_THAT(result.out, StartsWith("Usage: pellucid " + name + " "));
    size_t column = 0;
    for (const char c : result.out) {
      column = c == '\n' ? 0 : column + 1;
      ASSERT_LE(column, 80u) << name << ": " << result.out;
    }
  }
}

TEST(Program, EverySubcommandHasShortHelpOfOneScreen) {
  for (const std::string& name : Subcommands()) {
    const ProgramResult result = RunPellucid({name, "-h"});
    EXPECT_EQ(result.exit_code, 0) << name;
    EXPECT_THAT(result.err, IsEmpty()) << name;
    EXPECT_THAT(result.out, StartsWith("Usage: pellucid " + name + " "));
    EXPECT_THAT(result.out, HasSubstr("`pellucid " + name + " --help`"));
    EXPECT_THAT(result.out, HasSubstr("`man pellucid-" + name + "`"));
    EXPECT_LE(std::ranges::count(result.out, '\n'), 24) << result.out;
    // It is taken from the long help.
    const std::string help = RunPellucid({name, "--help"}).out;
    const std::vector<std::string> common = LongOptions(result.out);
    EXPECT_FALSE(common.empty()) << name;
    for (const std::string& option : common) {
      EXPECT_THAT(help, HasSubstr(option));
    }
  }
}

TEST(Program, QuietMeansTheSameEverywhere) {
  std::string meaning;
  for (const std::string& name : Subcommands()) {
    const std::string help = RunPellucid({name, "--help"}).out;
    const size_t at = help.find("\n  --quiet ");
    if (at == std::string::npos) continue;
    const std::string text =
        help.substr(at + 1, help.find("\n  -", at + 1) - at);
    if (meaning.empty()) meaning = text;
    EXPECT_EQ(text, meaning) << name;
  }
  EXPECT_THAT(meaning, HasSubstr("nothing but warnings"));
}

TEST(Program, MistypedSubcommandIsCorrected) {
  const ProgramResult result = RunPellucid({"exprot", "a", "b"});
  ExpectUsageError(result);
  EXPECT_THAT(result.err, HasSubstr("did you mean 'export'?"));
  ExpectUsageError(RunPellucid({"benchmarks"}));
}

TEST(Program, MistypedOptionsAreCorrected) {
  for (const char* word : {"--hedaer", "--hedaer=x"}) {
    const ProgramResult result = RunPellucid({"info", word, "a"});
    ExpectUsageError(result);
    EXPECT_THAT(result.err, HasSubstr("did you mean '--header'?"));
  }
  const ProgramResult far = RunPellucid({"info", "--nothing-like-it", "a"});
  ExpectUsageError(far);
  EXPECT_THAT(far.err, testing::Not(HasSubstr("did you mean")));
}

TEST(Program, WrongCommandLinesExitWith2) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {""},
      {"--unknown"},
      {"info"},
      {"info", "a", "b"},
      {"info", "--unknown", "a"},
      {"info", "--json=yes", "a"},
      {"info", "--js", "a"},
      {"info", "--header"},
      {"info", "--format", "vmdk", "a"},
      {"info", "--header-format", "", "a"},
      {"info", "--encryption", "luks", "a"},
      {"info", "--keyslot", "-1", "a"},
      {"info", "--keyslot", "4294967296", "a"},
      {"info", "--keyslot", "1x", "a"},
      {"info", "--keyslot", "32", "a"},
      {"export", "--passphrase-fd", "4294967295", "a", "b"},
      {"export", "a"},
      {"export", "--offset", "1KB", "a", "b"},
      {"export", "--length", "-1", "a", "b"},
      {"export", "--threads", "0", "a", "b"},
      {"export", "--threads", "1000000", "a", "b"},
      {"export", "--hash", "crc32", "a", "b"},
      {"mount", "a"},
      {"umount"}};
  for (const std::vector<std::string>& arguments : wrong) {
    SCOPED_TRACE(testing::PrintToString(arguments));
    ExpectUsageError(RunPellucid(arguments));
  }
}

TEST(Program, NumbersOutOfRangeAreToldTheRange) {
  EXPECT_THAT(RunPellucid({"info", "--keyslot", "99999999999", "a"}).err,
              HasSubstr("--keyslot takes a number from 0 to 31, not "
                        "'99999999999'"));
}

TEST(Program, WhatIsWrongWithTheCommandLineSaysWhereHelpIs) {
  EXPECT_THAT(RunPellucid({"info"}).err, HasSubstr("`pellucid info --help`"));
  EXPECT_THAT(RunPellucid({"nothing"}).err, HasSubstr("`pellucid --help`"));
}

TEST(Program, ControlCharactersDoNotReachTheTerminal) {
  const ProgramResult result = RunPellucid({"info", "no\x1b[31m\nfile"});
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.err.find('\x1b'), std::string::npos);
  EXPECT_EQ(std::ranges::count(result.err, '\n'), 1);
}

TEST(Program, OutputThatCannotBeWrittenIsAnError) {
  const ProgramResult result = RunProgram(
      {"sh", "-c", "exec \"$0\" --help >/dev/full", PELLUCID_PROGRAM});
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_THAT(result.err, HasSubstr("No space left"));
}

TEST(Program, ClosedStreamsDoNotCatchOpenedFiles) {
  const ScratchFolder folder;
  WriteHostFile(folder / "disk.raw", std::string(4096, 'd'));
  const ProgramResult result = RunProgram(
      {"sh", "-c", "exec \"$0\" export disk.raw copy.raw <&- >&- 2>&-",
       PELLUCID_PROGRAM},
      "", folder.path());
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(ReadHostFile(folder / "copy.raw"),
            ReadHostFile(folder / "disk.raw"));
}

}  // namespace
}  // namespace pellucid
