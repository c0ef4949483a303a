#include "tools/terminal_window.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"
#include "tests/tools/terminal_fixture.h"

namespace pellucid::cli {
namespace {

TEST(Wrapped, LinesThatFitStayAsTheyAre) {
  EXPECT_EQ(Wrapped("", 40), "");
  EXPECT_EQ(Wrapped("a  b\n\n   c\n", 40), "a  b\n\n   c\n");
  const std::string full(40, 'x');
  EXPECT_EQ(Wrapped(full + "\n", 40), full + "\n");
  EXPECT_EQ(Wrapped(full + "   \n", 40), full + "\n");
}

TEST(Wrapped, LongLinesAreBrokenBetweenWordsAndIndented) {
  EXPECT_EQ(Wrapped("  aaaa bbbb cccc dddd eeee ffff\n", 20),
            "  aaaa bbbb cccc\n"
            "      dddd eeee ffff\n");
}

TEST(Wrapped, ValuesContinueBelowThemselves) {
  EXPECT_EQ(Wrapped("  warning:   one two three four five\n", 26),
            "  warning:   one two three\n"
            "             four five\n");
  // A message is no name with a value.
  EXPECT_EQ(Wrapped("disk.qcow2: L1 entry:  is wrong indeed\n", 30),
            "disk.qcow2: L1 entry:  is\n"
            "    wrong indeed\n");
}

TEST(Wrapped, WordsThatAreTooLongStayWhole) {
  const std::string word(50, 'w');
  EXPECT_EQ(Wrapped("  " + word + "\n", 30), "  " + word + "\n");
  EXPECT_EQ(Wrapped("  " + word + " a " + word + "\n", 30),
            "  " + word + "\n      a\n      " + word + "\n");
}

}  // namespace
}  // namespace pellucid::cli

namespace pellucid {
namespace {

class TerminalWidthTest : public EncryptedImageTest {
 protected:
  // What is on a terminal of that width, line by line, without colours.
  std::vector<std::string> Lines(const std::string& command, unsigned columns) {
    ProgramOnTerminal shell(
        {"sh", "-c",
         fmt::format("stty cols {}; TERM=xterm exec \"$0\" {}", columns,
                     command),
         PELLUCID_PROGRAM},
        folder_.path());
    shell.WaitForEnd();
    std::istringstream screen(std::regex_replace(
        shell.screen(), std::regex("\x1b\\[[0-9;]*[mK]"), ""));
    std::vector<std::string> lines;
    for (std::string line; std::getline(screen, line);) {
      // The last of what was drawn over itself, such as a progress bar.
      while (line.ends_with('\r')) line.pop_back();
      lines.push_back(line.substr(line.rfind('\r') + 1));
    }
    return lines;
  }
};

TEST_F(TerminalWidthTest, NothingIsWiderThanTheTerminal) {
  MakeImage("base.qcow2");
  MakeImage("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2");
  EXPECT_EQ(RunPellucid({"snapshot", "create", "base.qcow2", "before update"})
                .exit_code,
            0);
  MakeImage("bad.qcow2");
  Bytes image = ReadHostFile(folder_ / "bad.qcow2");
  StoreNumber(image, LoadNumber(image, 40, 8), 8, 0x300007);
  WriteHostFile(folder_ / "bad.qcow2", image);
  for (const unsigned columns : {80u, 200u}) {
    size_t widest = 0;
    for (const char* command :
         {"info top.qcow2", "check bad.qcow2", "map top.qcow2",
          "map base.qcow2", "mount -h", "create --help", "--help"}) {
      const std::vector<std::string> lines = Lines(command, columns);
      EXPECT_GT(lines.size(), 3u) << command;
      for (const std::string& line : lines) {
        EXPECT_LE(line.size(), columns) << command << ": " << line;
        widest = std::max(widest, line.size());
      }
    }
    // The width that there is gets used.
    EXPECT_GT(widest, columns * 3 / 5) << columns;
  }
}

}  // namespace
}  // namespace pellucid
