#ifndef PELLUCID_TESTS_ENGINE_PROGRAMS_FIXTURE_H_
#define PELLUCID_TESTS_ENGINE_PROGRAMS_FIXTURE_H_

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid {

struct ProgramResult {
  int exit_code = -1;  // Or 128 + signal.
  std::string out;
  std::string err;
};

// Runs argv[0], found in PATH, with `input` on its standard input; waits for
// its end. A program that cannot be started has the exit code 127.
ProgramResult RunProgram(const std::vector<std::string>& argv,
                         std::string_view input = "",
                         const std::filesystem::path& folder = {});

// The same, but throws std::runtime_error with what the program said unless it
// exits with 0: a tool that is missing or fails must fail the test. Gives its
// standard output.
std::string RunTool(const std::vector<std::string>& argv,
                    std::string_view input = "",
                    const std::filesystem::path& folder = {});

// A program that runs until the end of the test.
class BackgroundProgram {
 public:
  // Returns when the program has printed `ready`; throws if it ends before.
  BackgroundProgram(const std::vector<std::string>& argv,
                    std::string_view ready);
  BackgroundProgram(const BackgroundProgram&) = delete;
  BackgroundProgram& operator=(const BackgroundProgram&) = delete;
  ~BackgroundProgram();

  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int input_ = -1;   // Its standard input, open until it is to end.
  int output_ = -1;  // Its standard output.
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_PROGRAMS_FIXTURE_H_
