#ifndef PELLUCID_ENGINE_QCOW2_CLUSTER_COUNTS_H_
#define PELLUCID_ENGINE_QCOW2_CLUSTER_COUNTS_H_

#include <cstdint>
#include <string>
#include <utility>

namespace pellucid::qcow2 {

// A number for each host cluster, 0 at first. Address space is taken for all of
// them, 4 bytes a cluster, but memory only for the 4 KiB pages that hold a
// number other than 0: a sparse file costs what it refers to. For one thread at
// a time; const members for many.
//
// 32 bits are enough: 65536 snapshots and the active state refer to a cluster
// once each, and only compressed data shares a cluster beyond that. A hostile
// image can say more; Add() reports it.
class ClusterCounts {
 public:
  // 4 GiB of address space: 64 TiB of 64 KiB clusters.
  static constexpr uint64_t kMaxClusters = uint64_t{1} << 30;

  // Throws Unsupported, naming `file_name`, above kMaxClusters.
  ClusterCounts(uint64_t clusters, const std::string& file_name);
  ~ClusterCounts();
  ClusterCounts(ClusterCounts&& other) noexcept
      : clusters_(std::exchange(other.clusters_, 0)),
        counts_(std::exchange(other.counts_, nullptr)) {}
  ClusterCounts& operator=(ClusterCounts&&) = delete;
  ClusterCounts(const ClusterCounts&) = delete;
  ClusterCounts& operator=(const ClusterCounts&) = delete;

  uint64_t size() const { return clusters_; }

  // Of any cluster; 0 behind the last one.
  uint32_t operator[](uint64_t cluster) const {
    return cluster < clusters_ ? counts_[cluster] : 0;
  }

  // Adds `n` to the count of `cluster` (< size()) but stops at `limit`, at most
  // 2^32 - 1. Returns how many did not fit.
  uint64_t Add(uint64_t cluster, uint64_t n, uint64_t limit) {
    const uint64_t room = limit - counts_[cluster];
    const uint64_t added = n < room ? n : room;
    counts_[cluster] += static_cast<uint32_t>(added);
    return n - added;
  }

 private:
  uint64_t clusters_;
  uint32_t* counts_ = nullptr;  // Mapped; null without clusters.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_CLUSTER_COUNTS_H_
