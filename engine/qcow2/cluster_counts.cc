#include "engine/qcow2/cluster_counts.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <new>

#include "engine/errors.h"

namespace pellucid::qcow2 {

ClusterCounts::ClusterCounts(uint64_t clusters, const std::string& file_name)
    : clusters_(clusters) {
  if (clusters > kMaxClusters) {
    throw Unsupported(
        fmt::format("{}: has {} clusters, above the limit of {} for a check of "
                    "the refcounts",
                    file_name, clusters, kMaxClusters));
  }
  if (clusters == 0) return;
  void* memory =
      mmap(nullptr, clusters * sizeof(uint32_t), PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  counts_ = static_cast<uint32_t*>(memory);
}

ClusterCounts::~ClusterCounts() {
  if (counts_ != nullptr) munmap(counts_, clusters_ * sizeof(uint32_t));
}

}  // namespace pellucid::qcow2
