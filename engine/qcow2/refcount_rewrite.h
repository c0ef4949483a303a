#ifndef PELLUCID_ENGINE_QCOW2_REFCOUNT_REWRITE_H_
#define PELLUCID_ENGINE_QCOW2_REFCOUNT_REWRITE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/qcow2/cluster_counts.h"
#include "engine/qcow2/cluster_set.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/spare_clusters.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// Refcounts for another state of an image, written as a whole beside those that
// it has: a new table and new blocks, in clusters that are free now. What is
// leaked stays leaked, unless the image is dirty or the refcounts are rebuilt.
// Memory: two bits for each cluster. For one thread at a time.
class RefcountRewrite {
 public:
  struct Parts {
    ResizableDevice& file;
    const std::string& file_name;
    const Header& header;         // Where the refcounts are now.
    const ClusterCounts& before;  // References now, and in the other state;
    const ClusterCounts& after;   // both count the present refcounts' clusters.
    SpareClusters& spare;
    // Believe nothing of the present refcounts, whose clusters `after` does
    // not count then.
    bool rebuilds = false;
  };
  struct Clusters {
    uint64_t first = 0;
    uint64_t count = 0;
  };

  // Borrows all. No stored refcount is below `before` unless the image is
  // dirty or its refcounts are rebuilt.
  explicit RefcountRewrite(const Parts& parts) : parts_(parts) {}

  // Places and writes it; nothing is flushed. Throws Unsupported if the width
  // does not hold a count, IoError (ENOSPC if the table becomes too long).
  void Write();

  // Behind Write():
  uint64_t table_offset() const { return table_.first * cluster_size(); }
  uint32_t table_clusters() const {
    return static_cast<uint32_t>(table_.count);
  }
  // In use before and free now, in ascending order.
  const std::vector<Clusters>& freed() const { return freed_; }
  // The first cluster behind all that are in use.
  uint64_t used_end() const { return used_end_; }

 private:
  uint64_t cluster_size() const { return parts_.header.cluster_size(); }
  uint64_t block_entries() const {
    return (cluster_size() * 8) >> parts_.header.refcount_order;
  }
  void ReadPresent();
  void FindBlocks();
  void NeedBlockOf(uint64_t cluster);
  void Place();
  void PlaceTable(uint64_t clusters);
  void WriteBlock(uint64_t number, uint64_t cluster);
  void WriteTable();
  uint64_t NewCount(uint64_t cluster, uint64_t stored) const;
  void Note(uint64_t cluster, uint64_t stored, uint64_t count);

  const Parts parts_;
  std::vector<uint64_t> present_blocks_;  // Offsets, by number.
  ClusterSet dropped_;                    // Clusters of the present refcounts.
  ClusterSet added_;                      // Clusters of the new ones.
  std::map<uint64_t, uint64_t> blocks_;   // Clusters by number; 0: no place.
  std::vector<uint64_t> unplaced_;        // Numbers.
  Clusters table_;
  std::vector<Clusters> freed_;
  uint64_t used_end_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_REFCOUNT_REWRITE_H_
