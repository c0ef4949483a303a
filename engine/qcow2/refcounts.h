#ifndef PELLUCID_ENGINE_QCOW2_REFCOUNTS_H_
#define PELLUCID_ENGINE_QCOW2_REFCOUNTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/qcow2/header.h"
#include "engine/qcow2/metadata_regions.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// Neighbouring host clusters, by number (offset / cluster size).
struct HostClusters {
  uint64_t first = 0;
  uint64_t count = 0;
};

// How often each host cluster is referred to ("Host cluster management" in the
// specification), and the allocation of clusters. Blocks of the table are
// loaded when they are needed; changes stay in memory until somebody writes
// them. A count that is raised may reach the file at any time, at worst as a
// leak; a count may only be lowered here when the reference that it counted has
// durably gone from the file.
//
// Not synchronised.
class Refcounts {
 public:
  // A change that is to be written.
  struct Change {
    uint64_t block;   // Number of the refcount block.
    uint64_t offset;  // In the file.
    std::vector<std::byte> bytes;
  };

  // Borrows `file` and `regions`. Loads the table. Throws CorruptImage and
  // IoError.
  Refcounts(ResizableDevice& file, std::string file_name, const Header& header,
            MetadataRegions& regions);

  // 0 also for clusters that no block counts. Throws CorruptImage for a table
  // entry that cannot be right, and IoError.
  uint64_t Get(uint64_t cluster);
  // Throws as Get() does, CorruptImage if the width does not hold `value`, and
  // as Allocate() does if a block is missing.
  void Set(uint64_t cluster, uint64_t value);
  uint64_t greatest() const { return greatest_; }

  // Refcount block `number` counts [number, number + 1) * clusters_per_block()
  // clusters.
  uint64_t clusters_per_block() const { return entries_per_block_; }
  bool HasBlock(uint64_t number) const {
    return number < table_.size() && table_[number] != 0;
  }
  bool CanHaveBlock(uint64_t number) const { return number < table_.size(); }
  // Makes block `number`, which the table has room for but has not got, with
  // the refcounts `counts`, in the cluster `place`, which nothing uses. Writes
  // it, flushes, and enters it into the table. For the repair of refcounts that
  // say nothing about `place` yet. Throws CorruptImage if `place` holds a table
  // all the same, and IoError.
  void MakeBlockAt(uint64_t number, uint64_t place,
                   const std::function<uint64_t(uint64_t cluster)>& count_of);

  // Finds up to `wanted` (> 0) neighbouring free clusters and counts them once.
  // Prefers the lowest, so that sequential writes get neighbours. New refcount
  // blocks, and a larger table, are durable in the file before they are used:
  // that may write and flush. Throws CorruptImage, and IoError (ENOSPC if the
  // format holds no more).
  HostClusters Allocate(uint64_t wanted);
  // The same, but exactly `count` of them.
  HostClusters AllocateExactly(uint64_t count);
  // Gives back what Allocate() gave and nothing in the file refers to.
  void Release(const HostClusters& clusters);

  // Lowers the count by one; true if the cluster is free now. Throws
  // CorruptImage if it was 0.
  bool Decrement(uint64_t cluster);

  uint64_t changed_bytes() const { return changed_bytes_; }
  // True if more blocks are in memory than should be, because they have
  // changes.
  bool is_crowded() const;
  // What has changed, no longer counted as changed. To be followed by
  // ChangesWritten() or ChangesNotWritten() before it is called again.
  std::vector<Change> TakeChanges();
  void ChangesWritten(const std::vector<Change>& changes);
  void ChangesNotWritten(const std::vector<Change>& changes);

 private:
  struct Block {
    std::vector<std::byte> bytes;
    // What has changed; empty if begin >= end.
    size_t changed_begin = SIZE_MAX;
    size_t changed_end = 0;
    // Taken to be written: until then the file has older counts.
    bool is_taken = false;
    bool is_changed() const { return changed_begin < changed_end; }
  };

  uint64_t BlockOf(uint64_t cluster) const {
    return cluster / entries_per_block_;
  }
  // Null if the table has none. Stays good until the next Load().
  Block* Load(uint64_t number);
  void DropCleanBlocks();
  uint64_t GetIn(const Block& block, uint64_t index) const;
  void SetIn(Block& block, uint64_t index, uint64_t value);
  void MarkChanged(Block& block, size_t begin, size_t end);
  // The first free entry of a block at or after `index`, entries_per_block_ if
  // there is none.
  uint64_t FindFree(const Block& block, uint64_t index) const;

  // Makes blocks from `number` on, which the table does not have yet.
  void CreateBlocks(uint64_t number);
  void GrowTable(uint64_t least_entries);
  // Writes new blocks with the clusters [begin, end) counted once.
  void WriteNewBlocks(uint64_t first_block, uint64_t count, uint64_t begin,
                      uint64_t end);
  void RefuseUsed(uint64_t first_cluster, uint64_t count) const;

  ResizableDevice& file_;
  const std::string file_name_;
  const uint64_t cluster_size_;
  const unsigned bits_;
  const uint64_t entries_per_block_;
  const uint64_t greatest_;
  MetadataRegions& regions_;

  uint64_t table_offset_;
  std::vector<uint64_t> table_;  // Host byte order; 0: no block.
  std::unordered_map<uint64_t, std::unique_ptr<Block>> blocks_;  // By number.
  std::vector<uint64_t> changed_blocks_;                         // Numbers.
  uint64_t changed_bytes_ = 0;
  uint64_t lowest_free_ = 0;  // No cluster in front of it is free.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_REFCOUNTS_H_
