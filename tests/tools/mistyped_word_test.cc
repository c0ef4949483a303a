#include "tools/mistyped_word.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>

namespace pellucid::cli {
namespace {

constexpr std::array<std::string_view, 4> kWords = {"mount", "umount", "info",
                                                    "export"};

TEST(MistypedWord, OneOrTwoWrongLettersAreForgiven) {
  EXPECT_EQ(NearestWord("mont", kWords), "mount");
  EXPECT_EQ(NearestWord("moutn", kWords), "mount");
  EXPECT_EQ(NearestWord("unmount", kWords), "umount");
  EXPECT_EQ(NearestWord("exprot", kWords), "export");
  EXPECT_EQ(NearestWord("inof", kWords), "info");
  EXPECT_EQ(NearestWord("INfo", kWords), "info");
}

TEST(MistypedWord, TheNearestOfSeveralWins) {
  EXPECT_EQ(NearestWord("mmount", kWords), "mount");
  EXPECT_EQ(NearestWord("umoun", kWords), "umount");
}

TEST(MistypedWord, NothingIsNearAnotherWord) {
  EXPECT_EQ(NearestWord("benchmark", kWords), "");
  EXPECT_EQ(NearestWord("", kWords), "");
  EXPECT_EQ(NearestWord(std::string(1000, 'm'), kWords), "");
}

}  // namespace
}  // namespace pellucid::cli
