#ifndef PELLUCID_TOOLS_VERIFY_COMMAND_H_
#define PELLUCID_TOOLS_VERIFY_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// pellucid verify. `arguments` are those behind the subcommand's name. Returns
// the exit code, which has a list of its own (see --help); throws Error.
int RunVerifyCommand(const std::vector<std::string>& arguments);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_VERIFY_COMMAND_H_
