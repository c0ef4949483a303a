#ifndef PELLUCID_TOOLS_KEY_COMMAND_H_
#define PELLUCID_TOOLS_KEY_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// `pellucid key list|add|remove|change`; `words` come after "key". Returns the
// exit code; throws Error and boost::program_options::error.
int RunKeyCommand(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_KEY_COMMAND_H_
