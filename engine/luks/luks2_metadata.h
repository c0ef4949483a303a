#ifndef PELLUCID_ENGINE_LUKS_LUKS2_METADATA_H_
#define PELLUCID_ENGINE_LUKS_LUKS2_METADATA_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/luks/volume_header.h"

namespace pellucid::luks {

// What the JSON must fit into.
struct Luks2Area {
  std::string file_name;      // For messages.
  uint64_t json_offset = 0;   // Byte of the file where the JSON stands.
  uint64_t header_bytes = 0;  // Both copies of binary header and JSON area.
  uint64_t area_bytes = 0;    // From the header's start to the end of what may
                              // hold keyslots.
  bool payload_follows = false;  // In place: segments begin behind the header.
};

// Reads the JSON area's text (LUKS2 On-Disk Format Specification, section 3)
// into keyslots, digests, segments and tokens. Everything is checked against
// the format, `area` and our limits. Throws CorruptImage, which names the field
// by its path ("keyslots.0.kdf.time"), and Unsupported for requirements,
// integrity, hardware encryption and a reencryption in progress.
VolumeHeader ParseLuks2Metadata(std::string_view text, const Luks2Area& area);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LUKS2_METADATA_H_
