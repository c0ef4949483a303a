#ifndef PELLUCID_TESTS_FUSE_PROGRAM_FIXTURE_H_
#define PELLUCID_TESTS_FUSE_PROGRAM_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {

// Uses the program as people do. There are two mountpoints, `file` and
// `directory`, in the current folder of what is run; a mount that is left there
// fails the test.
class ProgramTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Runs pellucid without a terminal.
  ProgramResult Pellucid(const std::vector<std::string>& arguments) const;
  // The same, but it has to succeed.
  void MustRun(const std::vector<std::string>& arguments) const;

  // Writes `content` to a new file in the folder; gives its path.
  std::string MakeFile(std::string_view name, std::string_view content) const;

  std::filesystem::path folder() const { return folder_.path(); }
  std::filesystem::path file() const { return folder() / "file"; }
  std::filesystem::path directory() const { return folder() / "directory"; }
  std::filesystem::path disk() const { return directory() / "disk"; }

 private:
  TemporaryFolder folder_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_PROGRAM_FIXTURE_H_
