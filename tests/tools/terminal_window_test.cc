#include "tools/terminal_window.h"

#include <gtest/gtest.h>

#include <string>

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
