#include "engine/qcow2/spare_clusters.h"

#include <algorithm>

namespace pellucid::qcow2 {

void SpareClusters::MarkUsed(uint64_t cluster) { used_.Add(cluster); }

uint64_t SpareClusters::Take(uint64_t count) {
  while (used_.Has(lowest_)) ++lowest_;
  uint64_t first = lowest_;
  for (uint64_t at = first; at < first + count; ++at) {
    if (used_.Has(at)) first = at + 1;
  }
  for (uint64_t i = 0; i < count; ++i) MarkUsed(first + i);
  return first;
}

void SpareClusters::GiveBack(uint64_t first, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) used_.Remove(first + i);
  lowest_ = std::min(lowest_, first);
}

}  // namespace pellucid::qcow2
