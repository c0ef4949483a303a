#ifndef PELLUCID_ENGINE_QCOW2_REFCOUNT_COMPARISON_H_
#define PELLUCID_ENGINE_QCOW2_REFCOUNT_COMPARISON_H_

#include <cstdint>
#include <functional>
#include <string>

#include "engine/block_device.h"
#include "engine/findings.h"
#include "engine/qcow2/cluster_counts.h"
#include "engine/qcow2/cluster_set.h"
#include "engine/qcow2/header.h"
#include "engine/work_watch.h"

namespace pellucid::qcow2 {

// A cluster whose refcount is not what it should be.
struct RefcountDifference {
  uint64_t cluster = 0;  // Host offset / cluster size.
  uint64_t stored = 0;
  uint32_t counted = 0;
  // Above 1, it stands for so many leaks, of which it is the first: a refcount
  // block that is said to count more than one part of the file.
  uint64_t clusters = 1;

  // The cluster is wasted; otherwise it can be given away while it is in use.
  bool is_leak() const { return stored > counted; }
};

struct RefcountComparison {
  uint64_t leaks = 0;        // Clusters with stored > counted.
  uint64_t corruptions = 0;  // Clusters with stored < counted.
  // Clusters behind the end of the file with a refcount: leaks that QEMU's
  // check does not count, as it ends with the file.
  uint64_t leaks_behind_end = 0;
  // Clusters whose refcount block cannot be where the refcount table says.
  uint64_t unreadable = 0;
  // Cluster of the file behind the last one that is counted or referred to.
  uint64_t used_end = 0;

  // Cluster by cluster, as far as they were counted: whether 1 is stored.
  ClusterSet stored_once;
};

// Compares the stored refcounts, of any width, with what a scan counted, and
// calls `each`, if there is one, for every difference in ascending order; those
// behind the end too, but not behind ClusterCounts::kMaxClusters. `watch`
// counts entries of the refcount table. Memory: a bit for each cluster.
//
// Repair is to collect the differences and then to store each `counted`: a new
// refcount block that this takes changes counts by itself. Throws IoError.
RefcountComparison CompareWithRefcounts(
    BlockDevice& file, const Header& header, const ClusterCounts& counts,
    const std::function<void(const RefcountDifference&)>& each = {},
    const WorkWatch& watch = {});

// An entry whose copied flag (bit 63) disagrees with the refcount of what it
// refers to.
struct WrongCopiedFlag {
  bool is_in_l1 = false;  // Otherwise in an L2 table.
  uint64_t byte = 0;      // Where the entry stands in the file.
  uint64_t entry = 0;     // Its first word.
  uint64_t times = 0;     // How many L1 entries share the table.
};

// Calls `each` for those of the active L1 table and its L2 tables, where the
// flag has to be set if and only if `is_counted_once(cluster)`. `each` may
// change the entry in the file. `watch` counts L2 tables. Throws IoError.
void ForEachWrongCopiedFlag(
    BlockDevice& file, const Header& header,
    const std::function<bool(uint64_t cluster)>& is_counted_once,
    const std::function<void(const WrongCopiedFlag&)>& each,
    const WorkWatch& watch = {});

// Finds entries of the active L1 table and its L2 tables whose copied flag (bit
// 63) disagrees with a stored refcount of 1. A flag that is set wrongly lets a
// write change a snapshot. `watch` counts L2 tables. Throws IoError.
Findings CheckCopiedFlags(BlockDevice& file, const std::string& file_name,
                          const Header& header, const ClusterSet& stored_once,
                          const WorkWatch& watch = {});

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_REFCOUNT_COMPARISON_H_
