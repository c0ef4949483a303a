// The version stands in CMakeLists.txt; what cannot take it from there must not
// tell another.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <string>

#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

const std::filesystem::path kPackaging =
    std::filesystem::path(PELLUCID_TEST_IMAGES).parent_path().parent_path() /
    "packaging";

// What --version prints: "pellucid 0.1.0".
std::string NameAndVersion() {
  std::string line = RunProgram({PELLUCID_PROGRAM, "--version"}).out;
  line.pop_back();
  return line;
}

TEST(Version, TheChangelogBeginsWithIt) {
  std::ifstream changelog(kPackaging / "changelog");
  std::string name, version;
  changelog >> name >> version;
  EXPECT_EQ(version, "(" + NameAndVersion().substr(name.size() + 1) + ")");
}

TEST(Version, ManualPagesNameNoOther) {
  const std::regex any_version("pellucid [0-9]+\\.[0-9.]*[0-9]");
  size_t pages = 0;
  for (const auto& file : std::filesystem::directory_iterator(kPackaging)) {
    const std::string extension = file.path().extension();
    if (extension != ".1" && extension != ".8") continue;
    ++pages;
    std::ifstream page(file.path());
    std::smatch match;
    for (std::string line; std::getline(page, line);) {
      if (!std::regex_search(line, match, any_version)) continue;
      EXPECT_EQ(match.str(), NameAndVersion()) << file.path();
    }
  }
  EXPECT_GE(pages, 1U);
}

}  // namespace
}  // namespace pellucid
