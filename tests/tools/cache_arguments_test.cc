#include "tools/cache_arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/thrown_text.h"
#include "tools/command_line.h"

namespace pellucid::cli {
namespace {

using testing::HasSubstr;

CacheOptions Parse(const std::vector<std::string>& words) {
  CacheArguments arguments;
  boost::program_options::options_description options;
  arguments.AddTo(options);
  const CommandSyntax syntax = {
      .synopsis = "", .description = "", .operands = {}, .common_options = {}};
  ParseCommandLine(syntax, options, words);
  return arguments.ToCacheOptions();
}

TEST(CacheArgumentsTest, WritesAreGatheredByDefault) {
  const CacheOptions options = Parse({});
  EXPECT_EQ(options.mode, CacheMode::kWriteback);
  EXPECT_EQ(options.bytes, uint64_t{64} << 20);
}

TEST(CacheArgumentsTest, ModesAndSizesAreTaken) {
  EXPECT_EQ(Parse({"--cache", "none"}).mode, CacheMode::kNone);
  EXPECT_EQ(Parse({"--cache", "writethrough"}).mode, CacheMode::kWritethrough);
  EXPECT_EQ(Parse({"--cache", "writeback", "--cache-size", "1G"}).bytes,
            uint64_t{1} << 30);
  EXPECT_EQ(Parse({"--cache-size", "1M"}).bytes, kLeastCacheBytes);
  EXPECT_EQ(Parse({"--cache-size", "1T"}).bytes, kGreatestCacheBytes);
}

TEST(CacheArgumentsTest, OthersAreRefused) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{
           {"--cache", "unsafe"},
           {"--cache-size", "1048575"},
           {"--cache-size", "1099511627777"},
           {"--cache-size", "much"},
           {"--cache", "none", "--cache-size", "1M"}}) {
    EXPECT_THAT(ThrownText<UsageError>([&] { Parse(words); }),
                HasSubstr("--cache"));
  }
}

}  // namespace
}  // namespace pellucid::cli
