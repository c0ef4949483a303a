#ifndef PELLUCID_TOOLS_IMPORT_COMMAND_H_
#define PELLUCID_TOOLS_IMPORT_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// `pellucid import PLAIN IMAGE`: copies plaintext into an image that is there.
// Returns the exit code. Throws Error and boost::program_options::error.
int RunImportCommand(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_IMPORT_COMMAND_H_
