#ifndef PELLUCID_TOOLS_HEADER_COMMAND_H_
#define PELLUCID_TOOLS_HEADER_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// `pellucid header backup|restore|detach|attach|repair`; `words` come after
// "header". Returns the exit code; throws Error and
// boost::program_options::error.
int RunHeaderCommand(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_HEADER_COMMAND_H_
