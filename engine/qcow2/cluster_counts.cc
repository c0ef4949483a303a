#include "engine/qcow2/cluster_counts.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <new>

#include "engine/errors.h"

namespace pellucid::qcow2 {

ClusterCounts::ClusterCounts(uint64_t clusters, const std::string& file_name)
    : file_name_(file_name), clusters_(clusters) {
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
  // A large page for one number would make it dear.
  madvise(memory, clusters * sizeof(uint32_t), MADV_NOHUGEPAGE);
  counts_ = static_cast<uint32_t*>(memory);
  touched_.resize((clusters + kPage - 1) / kPage);
}

void ClusterCounts::Touch(uint64_t page) {
  if (++pages_ > kFreePages + added_ / kAddedForPage) {
    throw Unsupported(fmt::format(
        "{}: the clusters that are in use are so scattered over {} clusters "
        "that counting them takes more memory than they are worth; `qemu-img "
        "convert` makes an image without gaps",
        file_name_, clusters_));
  }
  touched_[page] = true;
}

ClusterCounts::~ClusterCounts() {
  if (counts_ != nullptr) munmap(counts_, clusters_ * sizeof(uint32_t));
}

}  // namespace pellucid::qcow2
