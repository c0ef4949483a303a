#ifndef PELLUCID_TOOLS_EXTENT_LIST_H_
#define PELLUCID_TOOLS_EXTENT_LIST_H_

#include <string>

#include "engine/block_device.h"

namespace pellucid::cli {

// Where `device` has data: a line for each run of it, with its offset and its
// length in bytes, separated by a tab.
std::string ListDataRuns(BlockDevice& device);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_EXTENT_LIST_H_
