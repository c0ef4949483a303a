// The manual pages against the option table, which is what --help prints, and
// against programs that know how a manual page has to be.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

using testing::HasSubstr;
using testing::IsEmpty;

std::string ReadText(const fs::path& file) {
  const Bytes bytes = ReadHostFile(file);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::string> Subcommands() {
  std::istringstream lines(RunTool({PELLUCID_PROGRAM, "--complete", ""}));
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);) {
    names.push_back(line.substr(0, line.find('\t')));
  }
  return names;
}

fs::path PageOf(const std::string& subcommand) {
  return fs::path(PELLUCID_MANUAL_PAGES) /
         fmt::format("pellucid-{}.1", subcommand);
}

std::vector<fs::path> AllPages() {
  std::vector<fs::path> pages = {
      fs::path(PELLUCID_MANUAL_PAGES) / "pellucid.1",
      fs::path(PELLUCID_TEST_IMAGES).parent_path().parent_path() / "packaging" /
          "mount.pellucid.8"};
  for (const std::string& name : Subcommands()) pages.push_back(PageOf(name));
  return pages;
}

// A line of a page as the reader sees it: roff changes fonts by \fB and writes
// a hyphen that may be copied as \-.
std::string Shown(const std::string& line) {
  std::string text = std::regex_replace(line, std::regex(R"(\\f[BIR])"), "");
  return std::regex_replace(text, std::regex(R"(\\(.))"), "$1");
}

std::vector<std::string> LinesOf(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// "-f, --foreground", "--cache writeback|writethrough|none": what the help has
// in front of its descriptions, without defaults.
std::set<std::string> OptionsOfHelp(const std::string& subcommand) {
  std::set<std::string> options;
  const std::string help = RunTool({PELLUCID_PROGRAM, subcommand, "--help"});
  for (const std::string& line : LinesOf(help.substr(help.find("Options:")))) {
    if (!line.starts_with("  -")) continue;
    std::string option = line.substr(2);
    option.resize(std::min(option.find("  "), option.size()));
    options.insert(
        std::regex_replace(option, std::regex(R"( \(=[^)]*\))"), ""));
  }
  return options;
}

std::set<std::string> OptionsOfPage(const fs::path& page) {
  std::set<std::string> options;
  const std::vector<std::string> lines = LinesOf(ReadText(page));
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::string tag = Shown(lines[i]);
    if (lines[i - 1] == ".TP" && tag.starts_with('-')) {
      EXPECT_TRUE(options.insert(tag).second)
          << page << " explains " << tag << " twice";
    }
  }
  return options;
}

TEST(ManualPages, ExplainTheOptionsOfTheHelpAndNoOthers) {
  ASSERT_GE(Subcommands().size(), 12u);
  for (const std::string& name : Subcommands()) {
    EXPECT_THAT(OptionsOfPage(PageOf(name)),
                testing::ContainerEq(OptionsOfHelp(name)))
        << name;
  }
}

// In running text and in examples, too.
TEST(ManualPages, NameNoOptionThatDoesNotExist) {
  std::set<std::string> known = {"--version"};
  for (const std::string& name : Subcommands()) {
    for (const std::string& option : OptionsOfHelp(name)) {
      known.insert(option.substr(
          option.find("--"),
          option.find(' ', option.find("--")) - option.find("--")));
    }
  }
  const std::regex word("--[a-z][a-z0-9-]*");
  const std::regex of_others("qemu-img|cryptsetup|grep|systemd-creds|sha256sum|cksum");
  for (const fs::path& page : AllPages()) {
    for (const std::string& raw : LinesOf(ReadText(page))) {
      const std::string line = Shown(raw);
      if (std::regex_search(line, of_others)) continue;
      for (std::sregex_iterator at(line.begin(), line.end(), word), end;
           at != end; ++at) {
        EXPECT_TRUE(known.contains(at->str())) << page << ": " << line;
      }
    }
  }
}

TEST(ManualPages, HaveExamples) {
  for (const fs::path& page : AllPages()) {
    const std::string text = ReadText(page);
    const size_t examples = text.find("\n.SH EXAMPLES\n");
    ASSERT_NE(examples, std::string::npos) << page;
    EXPECT_NE(text.find("\n.EX\n", examples), std::string::npos) << page;
  }
}

TEST(ManualPages, TheFirstNamesAllOthers) {
  const std::string text =
      ReadText(fs::path(PELLUCID_MANUAL_PAGES) / "pellucid.1");
  for (const std::string& name : Subcommands()) {
    EXPECT_THAT(text, HasSubstr(fmt::format("\\fBpellucid\\-{}\\fR(1)", name)));
  }
}

TEST(ManualPages, FormattersHaveNothingToWarnOf) {
  for (const fs::path& page : AllPages()) {
    const ProgramResult mandoc =
        RunProgram({"mandoc", "-Tlint", "-W", "warning", page});
    EXPECT_THAT(mandoc.out + mandoc.err, IsEmpty());
    EXPECT_EQ(mandoc.exit_code, 0) << page;
    const ProgramResult groff =
        RunProgram({"groff", "-man", "-Tutf8", "-ww", "-z", page});
    EXPECT_THAT(groff.out + groff.err, IsEmpty());
    EXPECT_EQ(groff.exit_code, 0) << page;
  }
}

TEST(ManualPages, AreInstalled) {
  const ScratchFolder folder;
  RunTool({"cmake", "--install",
           fs::path(PELLUCID_PROGRAM).parent_path().parent_path(), "--prefix",
           folder.path()});
  for (const fs::path& page : AllPages()) {
    const fs::path installed = folder.path() / "share" / "man" /
                               ("man" + page.extension().native().substr(1)) /
                               page.filename();
    EXPECT_TRUE(fs::exists(installed)) << installed;
  }
}

}  // namespace
}  // namespace pellucid
