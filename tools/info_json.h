#ifndef PELLUCID_TOOLS_INFO_JSON_H_
#define PELLUCID_TOOLS_INFO_JSON_H_

#include <string>
#include <vector>

#include "engine/image_info.h"

namespace pellucid::cli {

// `info` as indented JSON in ASCII, with a newline at the end. The fields are
// those of docs/info-json.md, always all of them. Bytes of names that are not
// UTF-8 become U+FFFD.
std::string FormatInfoAsJson(const ImageInfo& info);

// The same for a LUKS header alone: the object "luks" of the above.
std::string FormatLuksAsJson(const LuksInfo& luks);

// The same for snapshots alone: the array "snapshots" of the above.
std::string FormatSnapshotsAsJson(const std::vector<SnapshotInfo>& snapshots);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_INFO_JSON_H_
