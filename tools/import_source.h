#ifndef PELLUCID_TOOLS_IMPORT_SOURCE_H_
#define PELLUCID_TOOLS_IMPORT_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "crypto/hash.h"
#include "engine/open_image.h"
#include "tools/copy_target.h"

namespace pellucid::cli {

// What an import reads from standard input instead of a file.
inline constexpr char kStandardInput[] = "-";

// Throws IoError if there is nothing at `path`, and UsageError if it is one of
// `files`, what the image is made of. Opens nothing: the image may be locked
// by ourselves.
void CheckImportSource(const std::string& path,
                       const std::vector<HostFileId>& files);

// Copies standard input, up to its end, to `target` from `offset` on. `hasher`
// may be null. `watch` is called with the bytes copied, also while nothing
// comes; what it throws ends the copy. Returns the bytes copied. Throws
// IoError, and UsageError if more than `room` bytes come; those are written
// then.
uint64_t CopyStandardInput(CopyTarget& target, uint64_t offset, uint64_t room,
                           crypto::Hasher* hasher,
                           const std::function<void(uint64_t)>& watch);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_IMPORT_SOURCE_H_
