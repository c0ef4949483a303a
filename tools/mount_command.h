#ifndef PELLUCID_TOOLS_MOUNT_COMMAND_H_
#define PELLUCID_TOOLS_MOUNT_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// pellucid mount. `arguments` are those behind the subcommand's name. Returns
// the exit code (in the process that goes on serving, too); throws Error and
// boost::program_options::error. Call before starting threads.
int RunMountCommand(const std::vector<std::string>& arguments);

// The same for what mount(8) says to kMountHelperName (mount_helper.h).
int RunMountHelper(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MOUNT_COMMAND_H_
