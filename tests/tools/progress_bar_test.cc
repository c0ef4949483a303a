#include "tools/progress_bar.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>

namespace pellucid::cli {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(ProgressBar, ShowsShareRateAndTimeLeft) {
  EXPECT_EQ(
      FormatProgress({.position = kGiB, .copied = kGiB}, 4 * kGiB, Seconds(10),
                     80),
      " 25% [########.........................] 1 GiB of 4 GiB, 102.4 MiB/s, "
      "0:30 left");
}

TEST(ProgressBar, HolesDoNotCountAsSpeed) {
  EXPECT_EQ(
      FormatProgress({.position = kGiB, .copied = 0}, 2 * kGiB, Seconds(1), 40),
      " 50% 1 GiB of 2 GiB, 0 bytes/s, 0:01 le");
}

TEST(ProgressBar, LongTimesHaveHours) {
  const std::string line = FormatProgress({.position = kGiB, .copied = kGiB},
                                          100 * kGiB, Seconds(60), 100);
  EXPECT_NE(line.find("1:39:00 left"), std::string::npos) << line;
}

TEST(ProgressBar, FitsEveryWidth) {
  for (unsigned columns = 0; columns < 200; ++columns) {
    const std::string line = FormatProgress({.position = kGiB, .copied = kGiB},
                                            3 * kGiB, Seconds(7), columns);
    EXPECT_LE(line.size(), columns == 0 ? 0 : columns - 1);
  }
}

TEST(ProgressBar, NothingToCopyIsDone) {
  EXPECT_EQ(FormatProgress({}, 0, Seconds(0), 80).substr(0, 5), "100% ");
}

}  // namespace
}  // namespace pellucid::cli
