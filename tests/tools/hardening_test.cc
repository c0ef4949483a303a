// What the compiler and the linker were told to build in against exploits is in
// the program. readelf looks.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

std::string ReadElf(const std::string& what) {
  return RunTool({"readelf", "--wide", what, PELLUCID_PROGRAM});
}

TEST(HardeningTest, TheProgramIsLoadedAnywhere) {
  EXPECT_THAT(ReadElf("--file-header"), ContainsRegex("Type: +DYN"));
  EXPECT_THAT(ReadElf("--dynamic"), ContainsRegex("FLAGS_1.*PIE"));
}

TEST(HardeningTest, ItsTablesAreReadOnlyBeforeItRuns) {
  EXPECT_THAT(ReadElf("--program-headers"), HasSubstr("GNU_RELRO"));
  EXPECT_THAT(ReadElf("--dynamic"), ContainsRegex("FLAGS.*BIND_NOW"));
}

TEST(HardeningTest, NeitherStackNorDataIsExecuted) {
  const std::string headers = ReadElf("--program-headers");
  EXPECT_THAT(headers, ContainsRegex("GNU_STACK.* RW "));
  EXPECT_THAT(headers, Not(ContainsRegex("LOAD.* RWE ")));
}

TEST(HardeningTest, StacksAreGuarded) {
  EXPECT_THAT(ReadElf("--dyn-syms"), HasSubstr("__stack_chk_fail"));
}

#ifdef _FORTIFY_SOURCE
TEST(HardeningTest, CallsOfTheCLibraryAreChecked) {
  EXPECT_THAT(ReadElf("--dyn-syms"), ContainsRegex(" __[a-z]+_chk@GLIBC"));
}
#endif

#ifdef __x86_64__
// CET: our functions begin with the mark of what an indirect jump may reach.
// Whether it is enforced is said by a note that the linker makes only if the
// system's own start files are compiled alike, as those of Debian 12 are not.
TEST(HardeningTest, FunctionsAreMarkedForIndirectJumps) {
  const Bytes program = ReadHostFile(PELLUCID_PROGRAM);
  const std::string_view bytes(reinterpret_cast<const char*>(program.data()),
                               program.size());
  constexpr std::string_view kEndbr64 = "\xf3\x0f\x1e\xfa";
  int marks = 0;
  for (size_t at = bytes.find(kEndbr64); at != std::string_view::npos;
       at = bytes.find(kEndbr64, at + 1)) {
    ++marks;
  }
  EXPECT_GE(marks, 1000);
}
#endif

}  // namespace
}  // namespace pellucid
