#ifndef PELLUCID_TOOLS_INFO_TEXT_H_
#define PELLUCID_TOOLS_INFO_TEXT_H_

#include <string>
#include <vector>

#include "engine/image_info.h"

namespace pellucid::cli {

// `info` for people: one fact a line, the backing chain as an indented tree.
// Control characters in names are made visible.
std::string FormatInfoAsText(const ImageInfo& info);

// The table of snapshots alone; nothing without any.
std::string FormatSnapshotsAsText(const std::vector<SnapshotInfo>& snapshots);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_INFO_TEXT_H_
