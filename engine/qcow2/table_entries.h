#ifndef PELLUCID_ENGINE_QCOW2_TABLE_ENTRIES_H_
#define PELLUCID_ENGINE_QCOW2_TABLE_ENTRIES_H_

#include <cstdint>

#include "engine/qcow2/header.h"

namespace pellucid::qcow2 {

// Bits of table entries ("Cluster mapping", "Refcount table" and "Bitmap table"
// in the specification).

// Bits 9 to 55: where the L2 table or the cluster stands.
inline constexpr uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;
inline constexpr uint64_t kCompressed = uint64_t{1} << 62;
// The refcount is exactly one: what is there may be changed in place.
inline constexpr uint64_t kCopied = uint64_t{1} << 63;
inline constexpr uint64_t kReadsAsZeros = 1;  // Standard L2 entries only.

// What has to be zero.
inline constexpr uint64_t kL1Reserved = 0x7f00'0000'0000'01ff;
inline constexpr uint64_t kL2Reserved = 0x3f00'0000'0000'01fe;
inline constexpr uint64_t kRefcountTableReserved = 0x1ff;
inline constexpr uint64_t kBitmapTableReserved = 0xff00'0000'0000'01fe;

// Extended entries: bits 0 to 31 of the bitmap say which subclusters are
// allocated, bits 32 to 63 which read as zeros.
inline constexpr uint64_t kSubclusters = 32;

// The bits of subclusters [first, end) as allocated ones.
constexpr uint64_t SubclusterBits(uint64_t first, uint64_t end) {
  return ((uint64_t{1} << end) - 1) & ~((uint64_t{1} << first) - 1);
}

// An L2 entry in host byte order.
struct L2Entry {
  uint64_t descriptor = 0;
  uint64_t subclusters = 0;  // The bitmap of an extended entry, else 0.
  bool operator==(const L2Entry&) const = default;
};

// Whether a standard L2 entry has a host cluster. With an external data file
// offset 0 is a place for data too; the copied flag tells.
inline bool HasCluster(const Header& header, uint64_t descriptor) {
  return (descriptor & kOffsetMask) != 0 ||
         (header.has(kExternalDataFile) && (descriptor & kCopied) != 0 &&
          (descriptor & kReadsAsZeros) == 0);
}

// The bits of a compressed entry that say where its data begins; those above
// them, below the flags, count sectors ("Compressed Clusters Descriptor":
// x = 62 - (cluster_bits - 8)).
constexpr unsigned CompressedOffsetBits(uint32_t cluster_bits) {
  return 62 - (cluster_bits - 8);
}
constexpr uint64_t CompressedOffset(uint32_t cluster_bits,
                                    uint64_t descriptor) {
  return descriptor &
         ((uint64_t{1} << CompressedOffsetBits(cluster_bits)) - 1);
}
// The bytes from there to the end of the last sector, of which the data may
// leave some.
constexpr uint64_t CompressedBytes(uint32_t cluster_bits, uint64_t descriptor) {
  const uint64_t sectors = ((descriptor & (kCompressed - 1)) >>
                            CompressedOffsetBits(cluster_bits)) +
                           1;
  return sectors * 512 - CompressedOffset(cluster_bits, descriptor) % 512;
}

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_TABLE_ENTRIES_H_
