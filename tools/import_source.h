#ifndef PELLUCID_TOOLS_IMPORT_SOURCE_H_
#define PELLUCID_TOOLS_IMPORT_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "tools/copy_target.h"
#include "tools/ordered_hashes.h"

namespace pellucid::cli {

// What an import reads from standard input instead of a file.
inline constexpr char kStandardInput[] = "-";

// Throws IoError if there is nothing at `path`, and UsageError if it is one of
// `files`, what the image is made of. Opens nothing: the image may be locked
// by ourselves.
void CheckImportSource(const std::string& path,
                       const std::vector<HostFileId>& files);

// Copies standard input, up to its end, to `target` from `offset` on. `hashes`
// may be null. `watch` is called with the bytes copied, also while nothing
// comes; what it throws ends the copy. Returns the bytes copied. Throws
// IoError, and UsageError if more than `room` bytes come; those are written
// then.
uint64_t CopyStandardInput(CopyTarget& target, uint64_t offset, uint64_t room,
                           OrderedHashes* hashes,
                           const std::function<void(uint64_t)>& watch);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_IMPORT_SOURCE_H_
