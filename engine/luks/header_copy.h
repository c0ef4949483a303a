#ifndef PELLUCID_ENGINE_LUKS_HEADER_COPY_H_
#define PELLUCID_ENGINE_LUKS_HEADER_COPY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/luks/keyslot_table.h"
#include "engine/luks/located_header.h"
#include "engine/luks/luks1_header.h"
#include "engine/luks/luks2_header.h"
#include "engine/luks/volume_header.h"

namespace pellucid::luks {

// A whole header with the key material of the keyslots in use, in memory. What
// removed keyslots have left behind is not in it.
struct HeaderCopy {
  struct Area {
    Keyslot keyslot;
    bool opens_volume = false;     // Its key is that of volume_digest.
    std::vector<std::byte> bytes;  // From keyslot.area_offset on.
  };

  unsigned version = 1;
  std::string uuid;
  std::vector<std::byte> volume_digest;  // With its salt: tells volume keys.
  uint64_t payload_offset = 0;           // The lowest of any segment.
  uint64_t used = 0;        // Up to the last byte of header and key material.
  uint64_t size = 0;        // With all room for keyslots: the size of a backup.
  std::vector<Area> areas;  // Of key material.
  Luks1Header luks1;        // If version is 1.
  Luks2Binary luks2;        // If it is 2: the newest copy.
};

// Reads the header that ReadLuksHeader() has accepted. Throws CorruptImage if a
// keyslots area is impossibly large, and IoError.
HeaderCopy CopyHeader(const LocatedHeader& located, uint64_t area_bytes);

// What is there now, as far as it can be read: nothing if it is no header.
std::optional<HeaderCopy> CopyHeaderIfReadable(const WritableHeader& place);

// Writes `copy` to `place`, and flushes. Requires copy.used <=
// place.area_bytes. If `present`, the header that is there, is of the same
// version and volume key, the keyslots of `copy` are first added to it in free
// room: wherever this is cut off, all passphrases of `present` open the volume,
// or all of `copy` do. LUKS1 may have no free keyslots for that; then, and over
// another header, it may be that nothing opens the volume until the same is
// done again, for which `copy` is enough. Last, key material that is not of
// `copy` becomes noise, and a second copy of LUKS2 that stands elsewhere as
// well; what lies in the payload of `copy` is left alone.
void WriteHeaderCopy(const WritableHeader& place, const HeaderCopy& copy,
                     const std::optional<HeaderCopy>& present);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_HEADER_COPY_H_
