#include "fuse/view_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace pellucid::fuse {
namespace {

using testing::ElementsAre;

std::vector<std::string> Safe(const std::vector<std::string>& names) {
  return SafeNames(names);
}

TEST(ViewNamesTest, OrdinaryNamesStay) {
  EXPECT_THAT(Safe({"before update", "2026-01-01", ".hidden", "...",
                    "\u00fcber\U0001f3b2", "-rf", "~", "a:b*c?"}),
              ElementsAre("before update", "2026-01-01", ".hidden", "...",
                          "\u00fcber\U0001f3b2", "-rf", "~", "a:b*c?"));
}

TEST(ViewNamesTest, WhatIsNoFileNameIsSpelledOut) {
  EXPECT_THAT(Safe({"a/b", "..", ".", "../../etc/passwd", "/", "100%"}),
              ElementsAre("a%2Fb", "%2E%2E", "%2E", "..%2F..%2Fetc%2Fpasswd",
                          "%2F", "100%25"));
}

TEST(ViewNamesTest, ControlCharactersAreSpelledOut) {
  EXPECT_THAT(Safe({"a\nb", "\x1b[31m", std::string("a\0b", 3), "\x7f",
                    "\u009b1m", "a\u202egnp.exe", "\u2066", "\u2028"}),
              ElementsAre("a%0Ab", "%1B[31m", "a%00b", "%7F", "%C2%9B1m",
                          "a%E2%80%AEgnp.exe", "%E2%81%A6", "%E2%80%A8"));
}

TEST(ViewNamesTest, BytesThatAreNotUtf8AreSpelledOut) {
  EXPECT_THAT(Safe({"\xff", "\xc0\xaf", "\xc3", "\xed\xa0\x80", "a\x80z",
                    "\xf4\x90\x80\x80", "\xe2\x82"}),
              ElementsAre("%FF", "%C0%AF", "%C3", "%ED%A0%80", "a%80z",
                          "%F4%90%80%80", "%E2%82"));
}

TEST(ViewNamesTest, EmptyAndEqualNamesGetTheirNumber) {
  EXPECT_THAT(Safe({"", "a", "", "a", "a%~4", "a"}),
              ElementsAre("%~1", "a", "%~3", "a%~4", "a%25~4", "a%~6"));
}

TEST(ViewNamesTest, LongNamesAreCutBetweenCharacters) {
  const std::string longest(255, 'x');
  EXPECT_THAT(Safe({longest, longest + "y", longest + "z"}),
              ElementsAre(longest, std::string(252, 'x') + "%~2",
                          std::string(252, 'x') + "%~3"));
  // 252 bytes are left: 84 characters of 3, or spelled-out bytes.
  std::string wide;
  for (int i = 0; i < 100; ++i) wide += "\u20ac";
  const std::string cut = wide.substr(0, 252) + "%~1";
  EXPECT_THAT(Safe({wide}), ElementsAre(cut));
  std::string slashes;
  for (int i = 0; i < 84; ++i) slashes += "%2F";
  EXPECT_THAT(Safe({std::string(100, '/')}), ElementsAre(slashes + "%~1"));
}

TEST(ViewNamesTest, AllAreDifferentAndFitForAFile) {
  std::vector<std::string> names;
  for (int byte = 0; byte < 256; ++byte) {
    for (const char* rest : {"", ".", "/", "\x80", "%"}) {
      names.push_back(static_cast<char>(byte) + std::string(rest));
      names.push_back(names.back());
    }
  }
  const std::vector<std::string> safe = Safe(names);
  EXPECT_EQ(std::set<std::string>(safe.begin(), safe.end()).size(),
            names.size());
  for (const std::string& name : safe) {
    EXPECT_FALSE(name.empty());
    EXPECT_LE(name.size(), 255U);
    EXPECT_EQ(name.find('/'), std::string::npos);
    EXPECT_NE(name, ".");
    EXPECT_NE(name, "..");
  }
}

}  // namespace
}  // namespace pellucid::fuse
