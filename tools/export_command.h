#ifndef PELLUCID_TOOLS_EXPORT_COMMAND_H_
#define PELLUCID_TOOLS_EXPORT_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// pellucid export. `arguments` are those behind the subcommand's name. Returns
// the exit code; throws Error and boost::program_options::error.
int RunExportCommand(const std::vector<std::string>& arguments);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_EXPORT_COMMAND_H_
