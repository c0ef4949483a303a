#include "tools/duration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/errors.h"

namespace pellucid::cli {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

TEST(ParseDuration, NumbersAreSecondsUnlessTheyHaveAUnit) {
  EXPECT_EQ(ParseDuration("x", "1"), seconds(1));
  EXPECT_EQ(ParseDuration("x", "90"), seconds(90));
  EXPECT_EQ(ParseDuration("x", "90s"), seconds(90));
  EXPECT_EQ(ParseDuration("x", "15m"), minutes(15));
  EXPECT_EQ(ParseDuration("x", "15min"), minutes(15));
  EXPECT_EQ(ParseDuration("x", "2h"), hours(2));
  EXPECT_EQ(ParseDuration("x", "3650d"), kGreatestDuration);
}

TEST(ParseDuration, AnythingElseIsRefused) {
  for (const char* text :
       {"", "0", "0h", "-1", "+1", "1.5h", "1 h", "h", "1w", "1hh", "1H",
        "3651d", "315360001", "4294967295d", "4294967296", "1s\n"}) {
    try {
      ParseDuration("idle-timeout", text);
      ADD_FAILURE() << text;
    } catch (const UsageError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("--idle-timeout takes"));
    }
  }
}

}  // namespace
}  // namespace pellucid::cli
