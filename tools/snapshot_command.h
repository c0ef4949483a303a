#ifndef PELLUCID_TOOLS_SNAPSHOT_COMMAND_H_
#define PELLUCID_TOOLS_SNAPSHOT_COMMAND_H_

#include <string>
#include <vector>

namespace pellucid::cli {

// `pellucid snapshot list|create|delete|apply IMAGE [NAME]`: the internal
// snapshots of a qcow2 image. Returns the exit code. Throws Error and
// boost::program_options::error.
int RunSnapshotCommand(const std::vector<std::string>& words);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_SNAPSHOT_COMMAND_H_
