#include "engine/qcow2/spare_clusters.h"

#include <algorithm>

namespace pellucid::qcow2 {

void SpareClusters::MarkUsed(uint64_t cluster) {
  if (cluster >= used_.size()) used_.resize(cluster + 1);
  used_[cluster] = true;
}

uint64_t SpareClusters::Take(uint64_t count) {
  while (IsUsed(lowest_)) ++lowest_;
  uint64_t first = lowest_;
  for (uint64_t at = first; at < first + count; ++at) {
    if (IsUsed(at)) first = at + 1;
  }
  for (uint64_t i = 0; i < count; ++i) MarkUsed(first + i);
  return first;
}

void SpareClusters::GiveBack(uint64_t first, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) used_[first + i] = false;
  lowest_ = std::min(lowest_, first);
  while (!used_.empty() && !used_.back()) used_.pop_back();
}

}  // namespace pellucid::qcow2
