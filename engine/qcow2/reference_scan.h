#ifndef PELLUCID_ENGINE_QCOW2_REFERENCE_SCAN_H_
#define PELLUCID_ENGINE_QCOW2_REFERENCE_SCAN_H_

#include <cstdint>
#include <span>
#include <string>

#include "engine/block_device.h"
#include "engine/findings.h"
#include "engine/qcow2/cluster_counts.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/snapshots.h"
#include "engine/work_watch.h"

namespace pellucid::qcow2 {

// How often the metadata of an image refers to each host cluster: what the
// refcounts should be. An external data file has none; there only metadata is
// counted.
struct ReferenceScan {
  // Of every cluster that the file has a part of, and one behind it, where an
  // unaligned entry can reach.
  ClusterCounts counts;

  // What makes an image corrupt for `qemu-img check` beyond wrong refcounts:
  // unaligned entries, reserved bits, places behind the end of the file,
  // impossible subclusters. What such an entry refers to may be missing in
  // `counts`: refcounts must not be repaired by them then.
  Findings corruptions;

  // What QEMU's check has no eye for although it can cost data: metadata that
  // is also referred to as something else, and tables cut off by the end of the
  // file. Not in `corruptions`.
  Findings hazards;

  // Clusters of the active state, as `qemu-img check` counts them.
  struct Mapping {
    uint64_t allocated = 0;
    uint64_t fragmented = 0;  // Not behind the one before in its L2 table.
    uint64_t compressed = 0;
  };
  Mapping mapping;

  // L2 entries of compressed clusters, of all states, and where the first one
  // that was met stands in the file.
  uint64_t compressed_entries = 0;
  uint64_t first_compressed = 0;
};

// Whether refcount table and blocks are looked at as well, or are to be made
// anew.
enum class CountRefcounts { kYes, kNo };

// Looks at everything that refers to clusters: header, L1 and L2 tables of the
// active state and of all `snapshots` (those of ReadSnapshots()), the snapshot
// table, the encryption header, bitmaps, refcount table and blocks.
//
// Every table is read once however many others share it, so that the work is
// bounded by the file. Memory: 4 bytes for each cluster, taken in pages as they
// are needed (ClusterCounts), some 64 bytes for each L2 table, 32 for each
// other table.
//
// `watch` counts L2 tables. Throws Unsupported above
// ClusterCounts::kMaxClusters, and IoError.
ReferenceScan ScanReferences(
    BlockDevice& file, const std::string& file_name, const Header& header,
    std::span<const Snapshot> snapshots,
    CountRefcounts count_refcounts = CountRefcounts::kYes,
    const WorkWatch& watch = {});

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_REFERENCE_SCAN_H_
