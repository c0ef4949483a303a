#ifndef PELLUCID_ENGINE_LUKS_HEADER_CHECK_H_
#define PELLUCID_ENGINE_LUKS_HEADER_CHECK_H_

#include <cstdint>
#include <optional>
#include <string>

#include "engine/block_device.h"
#include "engine/findings.h"
#include "engine/luks/located_header.h"

namespace pellucid::luks {

// Reads the header as ReadLuksHeader() does and adds what is wrong with it to
// `findings`: fields, the copies of LUKS2, keyslots whose key material is no
// noise any more. Needs no passphrase. Returns the header unless it cannot be
// used. Throws IoError.
std::optional<LocatedHeader> CheckHeader(BlockDevice& device, uint64_t offset,
                                         uint64_t area_bytes,
                                         const std::string& file_name,
                                         Place place, Findings& findings);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_HEADER_CHECK_H_
