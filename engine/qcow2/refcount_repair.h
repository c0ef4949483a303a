#ifndef PELLUCID_ENGINE_QCOW2_REFCOUNT_REPAIR_H_
#define PELLUCID_ENGINE_QCOW2_REFCOUNT_REPAIR_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/qcow2/cluster_counts.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/refcounts.h"
#include "engine/qcow2/snapshots.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// Puts the refcounts of an image right whose dirty bit is set ("Dirty bit" in
// the specification): somebody who kept them only in memory did not get to
// write them. Two steps: looking, when the image is opened, which changes
// nothing, and writing, in front of the first change.
//
// Memory between the two: 4 bytes for each cluster of the file that is in use.
// For one thread at a time.
class RefcountRepair {
 public:
  // Counts what refers to each cluster. Throws CorruptImage if more is wrong
  // than refcounts and copied flags, so that what was counted cannot be relied
  // on, or if the new refcounts would not fit into the refcount table; what
  // ScanReferences() throws; and IoError.
  RefcountRepair(BlockDevice& file, const std::string& file_name,
                 const Header& header, const std::vector<Snapshot>& snapshots);

  // Clusters and entries that Apply() will correct.
  uint64_t wrong_refcounts() const { return wrong_refcounts_; }
  uint64_t wrong_flags() const { return wrong_flags_; }

  // Writes the refcounts that were counted, and flushes; then the copied flags
  // of the active state, in `map` too, and flushes. A power cut leaves an image
  // that can be repaired again, as long as the dirty bit is set. May be called
  // again if it fails. Nothing else may change the image since the constructor
  // or meanwhile, but others may read. Throws CorruptImage and IoError.
  void Apply(ResizableDevice& file, Refcounts& refcounts, ClusterMap& map);

 private:
  void CheckRoom(uint64_t cluster) const;
  void SetRefcounts(ResizableDevice& file, Refcounts& refcounts);
  // What a cluster's refcount has to be: 1 more for a block that was made.
  uint64_t CountOf(uint64_t cluster) const;
  void MakeBlock(uint64_t number, Refcounts& refcounts);
  uint64_t PlaceFor(uint64_t number, Refcounts& refcounts) const;
  void SetFlags(ResizableDevice& file, ClusterMap& map) const;

  const std::string file_name_;
  const Header header_;
  const ClusterCounts counts_;
  // Refcount blocks that are made, by number: their clusters. Chosen once,
  // since an attempt that fails may or may not have reached the file.
  std::map<uint64_t, uint64_t> places_;
  uint64_t wrong_refcounts_ = 0;
  uint64_t wrong_flags_ = 0;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_REFCOUNT_REPAIR_H_
