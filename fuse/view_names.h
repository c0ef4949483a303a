#ifndef PELLUCID_FUSE_VIEW_NAMES_H_
#define PELLUCID_FUSE_VIEW_NAMES_H_

#include <span>
#include <string>
#include <vector>

namespace pellucid::fuse {

// File names for what an image calls by names of any bytes: snapshots and
// partitions. Each is different from the others, and none is longer than 255
// bytes, "." or "..".
//
// Names that are UTF-8 stay as they are. Only '/', '%', control characters
// (also those that turn the direction of writing), bytes that are not UTF-8,
// and the names "." and ".." are spelled as in a URL: each byte becomes %XX. A
// name that is empty, too long or taken already ends with "%~N", where N counts
// `names` from 1.
std::vector<std::string> SafeNames(std::span<const std::string> names);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_VIEW_NAMES_H_
