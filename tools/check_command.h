#ifndef PELLUCID_TOOLS_CHECK_COMMAND_H_
#define PELLUCID_TOOLS_CHECK_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// `pellucid check IMAGE`: looks for damage, and repairs it. Returns the exit
// code, which is that of `qemu-img check`: 0, 2 (corruptions), 3 (leaks) or 63
// (nothing that can be checked). Throws Error with exit code 1 if the check
// cannot be completed, for a wrong command line too.
int RunCheckCommand(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_CHECK_COMMAND_H_
