#ifndef PELLUCID_ENGINE_LUKS_LUKS2_JSON_H_
#define PELLUCID_ENGINE_LUKS_LUKS2_JSON_H_

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/luks/volume_header.h"

namespace pellucid::luks {

// The JSON of LUKS2, section 3 of the LUKS2 On-Disk Format Specification, from
// our own words: the inverse of luks2_metadata. Keeps the order of what it
// does not touch.
using Luks2Json = nlohmann::ordered_json;

Luks2Json KeyslotToJson(const Keyslot& slot);
Luks2Json DigestToJson(const Digest& digest);
Luks2Json SegmentToJson(const Segment& segment);

// How deep objects and arrays stand in each other in `text`, JSON or not.
size_t JsonDepth(std::string_view text);

// A whole document. `keyslots_bytes` is the size of the keyslots area and
// `json_bytes` that of one JSON area.
Luks2Json NewLuks2Metadata(const VolumeHeader& header, uint64_t json_bytes,
                           uint64_t keyslots_bytes);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LUKS2_JSON_H_
