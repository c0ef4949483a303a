#ifndef PELLUCID_ENGINE_QCOW2_METADATA_REGIONS_H_
#define PELLUCID_ENGINE_QCOW2_METADATA_REGIONS_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/snapshots.h"

namespace pellucid::qcow2 {

// Where a qcow2 file keeps its own tables, as it was opened: header, active L1
// and L2 tables, refcount table and blocks, the snapshots' table and L1 tables,
// and the LUKS header. A damaged or hostile image may call one of these places
// free, or somebody's data; writing there would destroy the image.
//
// Memory: 24 bytes for each table. Safe to call from many threads; takes no
// lock.
class MetadataRegions {
 public:
  // Reads the refcount table. Throws CorruptImage if two tables overlap, and
  // IoError. `file_name` is for messages.
  MetadataRegions(BlockDevice& file, const std::string& file_name,
                  const Header& header, const std::vector<uint64_t>& l1_entries,
                  const std::vector<Snapshot>& snapshots);

  // A table that was there has been given up, and its clusters freed.
  void Drop(uint64_t begin, uint64_t length);

  // True if something of [begin, begin + length) is one of these places.
  bool Overlap(uint64_t begin, uint64_t length) const;

  // Throws CorruptImage if `Overlap()`: "FILE: WHAT at offset N would overwrite
  // the image's own tables".
  void Check(uint64_t begin, uint64_t length, const std::string& file_name,
             const char* what) const;

 private:
  struct Region {
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  void CheckAgainstEachOther(const std::string& file_name) const;
  // The first that ends behind `offset`.
  size_t FirstBehind(uint64_t offset) const;

  std::vector<Region> regions_;             // By offset, none overlap.
  std::vector<std::atomic<bool>> dropped_;  // Of each region.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_METADATA_REGIONS_H_
