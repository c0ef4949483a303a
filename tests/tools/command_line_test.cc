#include "tools/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/program_options/errors.hpp>
#include <boost/program_options/value_semantic.hpp>

namespace pellucid::cli {
namespace {

namespace po = boost::program_options;

const CommandSyntax kSyntax = {.synopsis = "pellucid copy [OPTION]... FROM TO",
                               .description = "Copies.",
                               .operands = {"FROM", "TO"},
                               .common_options = {"fast"}};

class CommandLineTest : public testing::Test {
 protected:
  CommandLineTest() {
    options_.add_options()("name", po::value(&name_)->value_name("NAME"),
                           "a name")("fast,f", po::bool_switch(&fast_), "");
  }

  std::optional<std::vector<std::string>> Parse(
      const std::vector<std::string>& arguments) {
    return ParseCommandLine(kSyntax, options_, arguments);
  }

  po::options_description options_;
  std::string name_;
  bool fast_ = false;
};

TEST_F(CommandLineTest, OptionsMayStandAnywhere) {
  EXPECT_THAT(Parse({"a", "--name", "x", "b", "-f"}),
              testing::Optional(testing::ElementsAre("a", "b")));
  EXPECT_EQ(name_, "x");
  EXPECT_TRUE(fast_);
}

TEST_F(CommandLineTest, ALoneDashIsAnOperandOrAValue) {
  EXPECT_THAT(Parse({"a", "-", "--name", "-"}),
              testing::Optional(testing::ElementsAre("a", "-")));
  EXPECT_EQ(name_, "-");
}

TEST_F(CommandLineTest, NothingBehindTwoDashesIsAnOption) {
  EXPECT_THAT(Parse({"--", "--name", "-f"}),
              testing::Optional(testing::ElementsAre("--name", "-f")));
}

TEST_F(CommandLineTest, WrongOnesAreRefused) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"a"},
      {"a", "b", "c"},
      {"a", "b", "--nam", "x"},
      {"a", "b", "--name"},
      {"a", "b", "--other"},
      {"a", "b", "--name", "x", "--name", "y"},
      {"a", "b", "--fast=yes"},
      {"a", "b", "-x"}};
  for (const auto& arguments : wrong) {
    EXPECT_THROW(Parse(arguments), po::error)
        << testing::PrintToString(arguments);
  }
}

TEST_F(CommandLineTest, HelpNeedsNoOperands) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(Parse({"--help"}), std::nullopt);
  EXPECT_EQ(
      testing::internal::GetCapturedStdout(),
      "Usage: pellucid copy [OPTION]... FROM TO\n\nCopies.\n\nOptions:\n"
      "  --name NAME         a name\n"
      "  -f, --fast          \n"
      "  -h, --help          print the common options (-h), or all of them "
      "(--help)\n");
}

TEST_F(CommandLineTest, ShortHelpHasTheCommonOptionsAndSaysWhereTheRestIs) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"-h"}, {"-fh"}, {"a", "-h"}}) {
    testing::internal::CaptureStdout();
    EXPECT_EQ(Parse(words), std::nullopt);
    EXPECT_EQ(testing::internal::GetCapturedStdout(),
              "Usage: pellucid copy [OPTION]... FROM TO\n\nCommon options:\n"
              "  -f, --fast          \n"
              "\n`pellucid copy --help` tells all, and so does `man "
              "pellucid-copy`.\n");
  }
}

}  // namespace
}  // namespace pellucid::cli
