#ifndef PELLUCID_TOOLS_MAP_COMMAND_H_
#define PELLUCID_TOOLS_MAP_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// `pellucid map`: shows where the parts of an image are. Throws Error and
// boost::program_options::error.
int RunMapCommand(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MAP_COMMAND_H_
