#ifndef PELLUCID_TOOLS_RESIZE_COMMAND_H_
#define PELLUCID_TOOLS_RESIZE_COMMAND_H_

#include <string>
#include <vector>

#include "engine/resize_image.h"

namespace pellucid::cli {

// `pellucid resize IMAGE SIZE`: changes the size of an image. Returns the exit
// code. Throws Error and boost::program_options::error.
int RunResizeCommand(const std::vector<std::string>& words);

// "10G", "+1G" (more) or "-1G" (less). Throws UsageError.
NewSize ParseNewSize(const std::string& text);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_RESIZE_COMMAND_H_
