#ifndef PELLUCID_TOOLS_INFO_COMMAND_H_
#define PELLUCID_TOOLS_INFO_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// pellucid info. `arguments` are those behind the subcommand's name. Returns
// the exit code; throws Error and boost::program_options::error.
int RunInfoCommand(const std::vector<std::string>& arguments);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_INFO_COMMAND_H_
