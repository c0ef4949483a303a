#ifndef PELLUCID_TOOLS_CREATE_COMMAND_H_
#define PELLUCID_TOOLS_CREATE_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// `pellucid create`: makes an image, a detached LUKS header, or both. Returns
// the exit code. Throws Error and boost::program_options::error.
int RunCreateCommand(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_CREATE_COMMAND_H_
