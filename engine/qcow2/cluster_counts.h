#ifndef PELLUCID_ENGINE_QCOW2_CLUSTER_COUNTS_H_
#define PELLUCID_ENGINE_QCOW2_CLUSTER_COUNTS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pellucid::qcow2 {

// A number for each host cluster, 0 at first. Address space is taken for all of
// them, 4 bytes a cluster, but memory only for the 4 KiB pages that hold a
// number other than 0: a sparse file costs what it refers to. A hostile file
// could still make each of a few references cost a page; one whose references
// are so scattered is refused. For one thread at a time; const members for
// many.
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
      : file_name_(std::move(other.file_name_)),
        clusters_(std::exchange(other.clusters_, 0)),
        counts_(std::exchange(other.counts_, nullptr)),
        touched_(std::move(other.touched_)),
        pages_(other.pages_),
        added_(other.added_) {}
  ClusterCounts& operator=(ClusterCounts&&) = delete;
  ClusterCounts(const ClusterCounts&) = delete;
  ClusterCounts& operator=(const ClusterCounts&) = delete;

  uint64_t size() const { return clusters_; }

  // Of any cluster; 0 behind the last one.
  uint32_t operator[](uint64_t cluster) const {
    return cluster < clusters_ ? counts_[cluster] : 0;
  }

  // Calls `each(cluster)` for those in [begin, end) whose count is not 0. What
  // no number was added to is passed over fast.
  template <typename Each>
  void ForEachCounted(uint64_t begin, uint64_t end, Each&& each) const {
    end = end < clusters_ ? end : clusters_;
    for (uint64_t cluster = begin; cluster < end;) {
      if (!touched_[cluster / kPage]) {
        cluster = (cluster / kPage + 1) * kPage;
        continue;
      }
      if (counts_[cluster] != 0) each(cluster);
      ++cluster;
    }
  }

  // Adds `n` to the count of `cluster` (< size()) but stops at `limit`, at most
  // 2^32 - 1. Returns how many did not fit. Throws Unsupported if what was
  // added is too scattered.
  uint64_t Add(uint64_t cluster, uint64_t n, uint64_t limit) {
    ++added_;
    if (!touched_[cluster / kPage]) Touch(cluster / kPage);
    const uint64_t room = limit - counts_[cluster];
    const uint64_t added = n < room ? n : room;
    counts_[cluster] += static_cast<uint32_t>(added);
    return n - added;
  }

 private:
  static constexpr uint64_t kPage = 4096 / sizeof(uint32_t);
  // 64 MiB of pages for any file; 16 references for each one more.
  static constexpr uint64_t kFreePages = 16384;
  static constexpr uint64_t kAddedForPage = 16;

  void Touch(uint64_t page);

  std::string file_name_;
  uint64_t clusters_;
  uint32_t* counts_ = nullptr;  // Mapped; null without clusters.
  std::vector<bool> touched_;   // By page.
  uint64_t pages_ = 0;          // Of these.
  uint64_t added_ = 0;          // Calls of Add().
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_CLUSTER_COUNTS_H_
