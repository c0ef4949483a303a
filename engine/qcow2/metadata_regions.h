#ifndef PELLUCID_ENGINE_QCOW2_METADATA_REGIONS_H_
#define PELLUCID_ENGINE_QCOW2_METADATA_REGIONS_H_

#include <atomic>
#include <cstdint>
#include <set>
#include <shared_mutex>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/snapshots.h"

namespace pellucid::qcow2 {

// Where a qcow2 file keeps its own tables: header, L1 and L2 tables of the
// active state and of all snapshots, refcount table and blocks, the snapshot
// table, and the LUKS header. A damaged or hostile image may call one of these
// places free, or somebody's data; writing there would destroy the image.
//
// Memory: 24 bytes for each table, and 64 MiB at most for those of snapshots.
// Safe to call from many threads after LoadSnapshotTables().
class MetadataRegions {
 public:
  // Reads the refcount table. Throws CorruptImage if two tables overlap,
  // Unsupported if the L1 tables of the snapshots are longer than 512 MiB
  // together, and IoError. Borrows `file`; `file_name` is for messages.
  MetadataRegions(BlockDevice& file, const std::string& file_name,
                  const Header& header, const std::vector<uint64_t>& l1_entries,
                  const std::vector<Snapshot>& snapshots);

  // Reads the snapshots' L1 tables, which would make opening slow: to be called
  // before anything is changed, and before what follows. Throws Unsupported if
  // they refer to more than 8 Mi tables, and IoError; may be called again then.
  void LoadSnapshotTables();

  // A table has been put there.
  void Add(uint64_t begin, uint64_t length);
  // A table that was there has been given up, and its clusters freed. Nothing
  // happens to those of snapshots.
  void Drop(uint64_t begin, uint64_t length);

  // True if something of [begin, begin + length) is one of these places.
  bool Overlap(uint64_t begin, uint64_t length) const;
  // The same for the L2 tables of snapshots alone.
  bool OverlapSnapshotTable(uint64_t begin, uint64_t length) const;

  // Throws CorruptImage if `Overlap()`: "FILE: WHAT at offset N would overwrite
  // the image's own tables".
  void Check(uint64_t begin, uint64_t length, const char* what) const;

 private:
  struct Region {
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  // An L1 table in the file.
  struct TableOfTables {
    uint64_t offset = 0;
    uint32_t entries = 0;
  };

  void CheckAgainstEachOther() const;
  // The first that ends behind `offset`.
  size_t FirstBehind(uint64_t offset) const;
  bool OverlapAdded(uint64_t begin, uint64_t length) const;

  BlockDevice& file_;
  const std::string file_name_;
  const uint64_t cluster_size_;

  std::vector<Region> regions_;             // By offset, none overlap.
  std::vector<std::atomic<bool>> dropped_;  // Of each region.

  std::vector<TableOfTables> snapshot_l1_;  // Empty when they are loaded.
  std::vector<uint64_t> snapshot_tables_;   // Offsets of L2 tables, ascending.

  // Held for a look-up or an insertion; with nothing added nobody takes it.
  mutable std::shared_mutex added_mutex_;
  std::atomic<bool> has_added_ = false;
  std::set<uint64_t> added_;  // Offsets of clusters. Guarded by added_mutex_.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_METADATA_REGIONS_H_
