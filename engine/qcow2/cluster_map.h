#ifndef PELLUCID_ENGINE_QCOW2_CLUSTER_MAP_H_
#define PELLUCID_ENGINE_QCOW2_CLUSTER_MAP_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/l2_cache.h"
#include "engine/qcow2/offsets.h"
#include "engine/qcow2/snapshots.h"
#include "engine/qcow2/table_entries.h"

namespace pellucid::qcow2 {

// An L1 table in host byte order, and where it stands in the file.
struct L1Table {
  HostOffset offset;
  std::vector<uint64_t> entries;
};

// Where the L1 table of a snapshot stands.
struct L1Place {
  HostOffset offset;
  uint32_t size;  // In entries.
};

// Reads `size` entries at `offset`, already checked by CheckTable().
// Throws IoError.
L1Table ReadL1Table(BlockDevice& file, uint64_t offset, uint32_t size);

// Checks where a snapshot says that its L1 table stands, and that it is long
// enough for its disk. Throws CorruptImage.
L1Place CheckL1Place(BlockDevice& file, const std::string& file_name,
                     const Header& header, const Snapshot& snapshot);

// The L1 table of a snapshot, or of the active state if `snapshot` is null.
// Throws CorruptImage and IoError.
L1Table ReadL1TableOf(BlockDevice& file, const std::string& file_name,
                      const Header& header, const Snapshot* snapshot);

enum class ClusterKind {
  kUnallocated,  // The backing file's content, or zeros without one.
  kZero,
  kData,
  kCompressed,
};

// Where a run of guest bytes is. A kCompressed run lies in one cluster; a
// kData run is contiguous in the host file.
struct Mapping {
  ClusterKind kind = ClusterKind::kUnallocated;
  uint64_t length = 0;           // Guest bytes, never 0.
  HostOffset host;               // kData: the first byte. kCompressed: where
                                 // the cluster's compressed data begins.
                                 // Others: the place kept, if has_place.
  uint64_t compressed_size = 0;  // kCompressed: bytes from `host`, an upper
                                 // bound, as the format counts sectors.
  bool in_place = false;         // kData: nothing else refers to it, so that it
                                 // may be changed where it is.
  bool has_place = false;        // kUnallocated, kZero: there is a host cluster
                                 // all the same. A run of these is contiguous.
};

// Resolves guest offsets through the L1 and L2 tables of one image state, the
// active one or a snapshot's. Safe to call from many threads; takes no lock
// while the L2 entries are in the cache. One thread at a time may change
// entries, which those who look them up see at once.
class ClusterMap {
 public:
  // Borrows `file`, which holds the tables and must outlive the map.
  ClusterMap(BlockDevice& file, std::string file_name, const Header& header,
             L1Table l1, uint64_t l2_cache_bytes);

  // Of a snapshot beside the state that `cache` was made for, so that any
  // number of them takes no more memory: `cache`, which is borrowed too, holds
  // its L1 table as well. Its entries are only looked up.
  ClusterMap(BlockDevice& file, std::string file_name, const Header& header,
             L1Place l1, L2Cache& cache);

  // The run that begins at `at`, at most `max_length` (> 0) bytes of it; it
  // may end early. Throws CorruptImage, naming the entry, and IoError.
  Mapping Map(GuestOffset at, uint64_t max_length);

  // For whoever changes the tables.
  uint64_t l1_size() const { return l1_size_; }
  HostOffset L1EntryOffset(uint64_t index) const {
    return l1_offset_ + index * 8;
  }
  uint64_t L1Entry(uint64_t index) const;
  void SetL1Entry(uint64_t index, uint64_t entry) {
    l1_.at(index).store(entry);
  }
  // Offset of the L2 table for L1 entry `index`, 0 if it has none. Throws
  // CorruptImage if it cannot be one.
  uint64_t L2TableOf(uint64_t index) const;
  // An entry of the table at `table`. Throws IoError.
  L2Entry ReadEntry(HostOffset table, uint64_t index);
  // Where it stands, and how long entries are.
  HostOffset EntryOffset(HostOffset table, uint64_t index) const {
    return table + index * entry_bytes();
  }
  uint64_t entry_bytes() const { return entry_words_ * 8; }
  // Changes an entry whose slice is pinned in l2_cache().
  void ChangeEntry(HostOffset table, uint64_t index, const L2Entry& entry);
  L2Cache& l2_cache() { return cache_; }
  // The host cluster of an entry that has one, with data in it or not. Throws
  // CorruptImage if it is not at a multiple of the cluster.
  HostOffset HostCluster(HostOffset table, uint64_t index,
                         const L2Entry& entry) const;
  // The host bytes to which a compressed entry refers. Throws CorruptImage.
  Mapping CompressedRange(HostOffset table, uint64_t index,
                          const L2Entry& entry) const;

 private:
  ClusterMap(BlockDevice& file, std::string file_name, const Header& header,
             L1Place l1, std::unique_ptr<L2Cache> own_cache, L2Cache* cache);

  struct Entry {
    HostOffset at;        // Where the entry itself stands, for messages.
    GuestOffset cluster;  // What it is about.
    uint64_t descriptor;
    uint64_t subclusters;  // The bitmap of an extended entry.
    bool own_table;        // The table it is in belongs to this state alone.
  };

  // Begins `run` with what the entries of `table` say from `at` on; false if
  // the run ends within `length` bytes.
  bool MapWithinTable(HostOffset table, bool own_table, GuestOffset at,
                      uint64_t length, Mapping& run);
  Mapping Decode(const Entry& entry, uint64_t in_cluster,
                 uint64_t max_length) const;
  Mapping DecodeCompressed(const Entry& entry, uint64_t length) const;
  ClusterKind KindOf(const Entry& entry, uint64_t subcluster) const;
  bool HasHostCluster(const Entry& entry) const;
  uint64_t HostClusterOf(const Entry& entry) const;
  [[noreturn]] void CorruptEntry(const Entry& entry,
                                 const std::string& why) const;

  BlockDevice& file_;
  const std::string file_name_;
  const uint32_t version_;
  const uint32_t cluster_bits_;
  const uint64_t cluster_size_;
  const uint64_t l2_coverage_;
  const bool extended_l2_;
  const uint64_t entry_words_;
  const bool external_data_;
  const HostOffset l1_offset_;
  const uint64_t l1_size_;
  std::vector<std::atomic<uint64_t>> l1_;  // Empty: in the cache.
  const std::unique_ptr<L2Cache> own_cache_;
  L2Cache& cache_;  // own_cache_, or one that is borrowed.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_CLUSTER_MAP_H_
