#ifndef PELLUCID_ENGINE_QCOW2_ENTRY_BITS_H_
#define PELLUCID_ENGINE_QCOW2_ENTRY_BITS_H_

#include <cstdint>

#include "engine/qcow2/header.h"

namespace pellucid::qcow2 {

// Bits of table entries, for those who look at whole tables ("Cluster mapping"
// in the specification).
namespace entry {

// Bits 9 to 55: where an L2 table or a data cluster is.
inline constexpr uint64_t kOffset = 0x00ff'ffff'ffff'fe00;
inline constexpr uint64_t kCopied = uint64_t{1} << 63;
inline constexpr uint64_t kCompressed = uint64_t{1} << 62;
inline constexpr uint64_t kZero = 1;  // Not in extended entries.

inline constexpr uint64_t kL1Reserved = 0x7f00'0000'0000'01ff;
inline constexpr uint64_t kStandardReserved = 0x3f00'0000'0000'01fe;
inline constexpr uint64_t kRefcountTableReserved = 0x1ff;
inline constexpr uint64_t kBitmapTableReserved = 0xff00'0000'0000'01fe;

// Whether a standard L2 entry has a host cluster. With an external data file
// offset 0 is a place for data too; the copied flag tells.
inline bool HasCluster(const Header& header, uint64_t descriptor) {
  return (descriptor & kOffset) != 0 ||
         (header.has(kExternalDataFile) && (descriptor & kCopied) != 0 &&
          (descriptor & kZero) == 0);
}

}  // namespace entry
}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_ENTRY_BITS_H_
