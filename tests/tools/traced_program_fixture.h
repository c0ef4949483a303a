#ifndef PELLUCID_TESTS_TOOLS_TRACED_PROGRAM_FIXTURE_H_
#define PELLUCID_TESTS_TOOLS_TRACED_PROGRAM_FIXTURE_H_

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace pellucid {

// Lets `process` run, which this traces (with PTRACE_O_TRACEEXIT), until it is
// about to end: nothing of it runs any more, and its memory is still there.
// Throws std::runtime_error if it ends before.
void AwaitExit(pid_t process);

// Runs a program, whose output goes to the file `output`, to its end; `look` is
// called just before. Returns its status as waitpid(2) gives it.
int RunAndLook(const std::vector<std::string>& argv,
               const std::filesystem::path& output,
               const std::function<void(pid_t)>& look);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_TOOLS_TRACED_PROGRAM_FIXTURE_H_
