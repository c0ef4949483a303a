#ifndef PELLUCID_ENGINE_QCOW2_SPARE_CLUSTERS_H_
#define PELLUCID_ENGINE_QCOW2_SPARE_CLUSTERS_H_

#include <cstdint>

#include "engine/qcow2/cluster_set.h"

namespace pellucid::qcow2 {

// Which host clusters may be written without touching anything that an image
// has: a bit for each. Everything behind the last one in use is free. For one
// thread at a time.
class SpareClusters {
 public:
  // The cluster is in use, or may be.
  void MarkUsed(uint64_t cluster);
  // Takes `count` (> 0) neighbouring clusters, the lowest there are, and gives
  // the first.
  uint64_t Take(uint64_t count);
  // Gives back what Take() gave.
  void GiveBack(uint64_t first, uint64_t count);

 private:
  ClusterSet used_;
  uint64_t lowest_ = 0;  // No cluster in front of it is free.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_SPARE_CLUSTERS_H_
