#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/terminal_fixture.h"

namespace pellucid {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::IsSupersetOf;

// The words that the last of `words` may become.
std::vector<std::string> Complete(std::vector<std::string> words) {
  words.insert(words.begin(), {PELLUCID_PROGRAM, "--complete"});
  std::istringstream lines(RunTool(words));
  std::vector<std::string> completions;
  for (std::string line; std::getline(lines, line);) {
    completions.push_back(line.substr(0, line.find('\t')));
  }
  return completions;
}

TEST(Completion, SubcommandsComeFirst) {
  EXPECT_THAT(Complete({""}), IsSupersetOf({"mount", "umount", "map", "key"}));
  EXPECT_THAT(Complete({"mo"}), ElementsAre("mount"));
  EXPECT_THAT(Complete({"--v"}), ElementsAre("--version"));
  EXPECT_THAT(Complete({"nothing", ""}), IsEmpty());
}

TEST(Completion, EveryOptionOfTheHelpIsThere) {
  for (const std::string& subcommand : Complete({""})) {
    const std::string help = RunTool({PELLUCID_PROGRAM, subcommand, "--help"});
    std::set<std::string> options;  // The text may name one before the list.
    const std::regex option("\n  (?:-[a-zA-Z], )?(--[a-z0-9-]+)");
    for (std::sregex_iterator match(help.begin(), help.end(), option), end;
         match != end; ++match) {
      options.insert((*match)[1]);
    }
    EXPECT_THAT(Complete({subcommand, "-"}),
                testing::UnorderedElementsAreArray(options))
        << subcommand;
  }
}

TEST(Completion, ValuesAreThoseOfTheHelp) {
  EXPECT_THAT(Complete({"info", "--format", ""}),
              ElementsAre("auto", "qcow2", "raw"));
  EXPECT_THAT(Complete({"info", "--format=q"}), ElementsAre("--format=qcow2"));
  EXPECT_THAT(Complete({"info", "--header", ""}), ElementsAre(":files"));
  EXPECT_THAT(Complete({"create", "--detached-header", ""}),
              ElementsAre(":files"));
  EXPECT_THAT(Complete({"mount", "-o", ""}), IsEmpty());
  EXPECT_THAT(Complete({"info", "--json=", ""}), ElementsAre(":files"));
  EXPECT_THAT(Complete({"info", "--json="}), IsEmpty());
}

TEST(Completion, OperandsAreFilesOrActions) {
  EXPECT_THAT(Complete({"snapshot", "a"}), ElementsAre("apply"));
  EXPECT_THAT(Complete({"snapshot", "apply", ""}), ElementsAre(":files"));
  EXPECT_THAT(Complete({"snapshot", "apply", "disk", ""}), IsEmpty());
  EXPECT_THAT(Complete({"export", "--offset", "1M", "disk", "--", ""}),
              ElementsAre(":files"));
  EXPECT_THAT(Complete({"mount", "-f", "-o", "ro", "disk", ""}),
              ElementsAre(":files"));
  EXPECT_THAT(Complete({"info", "disk", ""}), IsEmpty());
}

// A bash that somebody types into, with the program in its PATH.
class BashCompletionTest : public testing::Test {
 protected:
  BashCompletionTest()
      : bash_({"env", "-i", "TERM=dumb", "PS1=$ ", "HOME=" + folder(),
               "PATH=" +
                   std::filesystem::path(PELLUCID_PROGRAM)
                       .parent_path()
                       .native() +
                   ":/usr/bin:/bin",
               "bash", "--norc", "--noprofile", "-i"},
              folder_.path()) {
    WriteHostFile(folder_ / "header.img", "");
    bash_.WaitFor("$ ");
    const auto packaging = std::filesystem::path(PELLUCID_TEST_IMAGES)
                               .parent_path()
                               .parent_path() /
                           "packaging";
    bash_.Type("source " + (packaging / "completions/pellucid.bash").native() +
               "\n");
    bash_.WaitFor("\n");
    bash_.WaitFor("$ ");
  }

  std::string folder() const { return folder_.path().native(); }

  ScratchFolder folder_;
  ProgramOnTerminal bash_;
};

TEST_F(BashCompletionTest, TabCompletes) {
  const auto expect = [&](const std::string& keys, const std::string& line) {
    bash_.Type(keys + "\t");
    bash_.WaitFor(line);  // Throws with what the screen shows.
    bash_.Type("\x15");   // Forgets the line.
  };
  expect("pellucid expo", "pellucid export ");
  expect("pellucid map --sv", "pellucid map --svg ");
  expect("pellucid info --encryption no", "--encryption none ");
  expect("pellucid info --format=q", "--format=qcow2 ");
  expect("pellucid info --header hea", "--header header.img ");
  expect("pellucid info --header=hea", "--header=header.img ");
  expect("pellucid snapshot del", "snapshot delete ");
  expect("pellucid info hea", "info header.img ");
  // Two of them show what there is.
  expect("pellucid info --header\t", "--header-format");
}

}  // namespace
}  // namespace pellucid
