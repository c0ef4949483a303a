#ifndef PELLUCID_ENGINE_QCOW2_STATE_READER_H_
#define PELLUCID_ENGINE_QCOW2_STATE_READER_H_

#include <cstdint>
#include <span>

#include "engine/block_device.h"
#include "engine/qcow2/cluster_data.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/compressed_clusters.h"

namespace pellucid::qcow2 {

// Reads the guest's disk as the tables of one state of an image have it: the
// active one or a snapshot. What it borrows may serve other states at the same
// time. Safe to call from many threads, if those that free clusters wait for
// them.
class StateReader {
 public:
  // Borrows everything; `backing` is null without a backing file. `size` is
  // that of the disk in this state.
  StateReader(ClusterMap& map, ClusterData& data,
              CompressedClusters& compressed, BlockDevice* backing,
              uint64_t size, uint64_t cluster_size)
      : map_(map),
        data_(data),
        compressed_(compressed),
        backing_(backing),
        size_(size),
        cluster_size_(cluster_size) {}

  uint64_t size() const { return size_; }
  // As BlockDevice has them.
  void Read(uint64_t offset, std::span<std::byte> out);
  Extent ExtentAt(uint64_t offset, uint64_t max_length);

 private:
  ClusterMap& map_;
  ClusterData& data_;
  CompressedClusters& compressed_;
  BlockDevice* const backing_;
  const uint64_t size_;
  const uint64_t cluster_size_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_STATE_READER_H_
