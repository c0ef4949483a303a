#ifndef PELLUCID_TOOLS_REPORT_COMMAND_H_
#define PELLUCID_TOOLS_REPORT_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// `pellucid report`. Returns the exit code; throws every kind of Error.
int RunReportCommand(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_REPORT_COMMAND_H_
