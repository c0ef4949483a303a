#ifndef PELLUCID_ENGINE_QCOW2_SHARED_CLUSTERS_H_
#define PELLUCID_ENGINE_QCOW2_SHARED_CLUSTERS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/offsets.h"
#include "engine/qcow2/snapshots.h"

namespace pellucid::qcow2 {

// Which clusters of one state of an image belong to another state as well: the
// active one or a snapshot. Found by what the tables of the others refer to, as
// refcounts cannot tell for compressed clusters, nor the copied flags for a
// snapshot. Immutable.
class SharedClusters {
 public:
  // Nothing is shared.
  SharedClusters() = default;

  // Reads all tables of the states other than `shown`, null for the active one;
  // each once however many states it belongs to. Entries that cannot be right
  // are passed over. Memory: 8 bytes for each cluster that the others have, and
  // some 40 for each L2 table. Throws IoError.
  SharedClusters(BlockDevice& file, const Header& header,
                 std::span<const Snapshot> snapshots, const Snapshot* shown);

  // Does another state have the cluster that holds the byte `host`?
  bool HasData(HostOffset host) const;
  // Or the compressed cluster that begins there?
  bool HasCompressed(HostOffset host) const { return Has(host.value); }
  // How many bytes of the run of data at `host`, at most `length`, are in
  // clusters of which the same is true as of the first.
  uint64_t AlikeBytes(HostOffset host, uint64_t length) const;

 private:
  bool Has(uint64_t place) const;
  void AddTable(BlockDevice& file, const Header& header, uint64_t table);
  // Drops what is there twice.
  void Compact();

  uint64_t cluster_size_ = 0;
  size_t compact_at_ = 0;         // How many places make another Compact().
  std::vector<uint64_t> places_;  // Ascending, each once. Of clusters, and of
                                  // the first byte of compressed ones.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_SHARED_CLUSTERS_H_
