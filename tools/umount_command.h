#ifndef PELLUCID_TOOLS_UMOUNT_COMMAND_H_
#define PELLUCID_TOOLS_UMOUNT_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// pellucid umount. `arguments` are those behind the subcommand's name. Returns
// the exit code; throws Error and boost::program_options::error.
int RunUmountCommand(const std::vector<std::string>& arguments);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_UMOUNT_COMMAND_H_
