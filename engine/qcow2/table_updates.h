#ifndef PELLUCID_ENGINE_QCOW2_TABLE_UPDATES_H_
#define PELLUCID_ENGINE_QCOW2_TABLE_UPDATES_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/compressed_clusters.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/mapping_users.h"
#include "engine/qcow2/metadata_regions.h"
#include "engine/qcow2/refcount_repair.h"
#include "engine/qcow2/refcounts.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// The changes of a qcow2 file's tables since the last flush. Readers see them
// at once; the file gets them in an order in which it is sound at any moment
// (docs/crash-consistency.md): refcounts and data; barrier; L2 tables; barrier;
// L1 entries; barrier; and only then what nothing refers to any more is freed.
//
// Flush() may be called from many threads. Everything under "While mutex() is
// held" requires just that.
class TableUpdates {
 public:
  struct Parts {
    std::string file_name;
    ResizableDevice& file;
    ResizableDevice* data_file;  // Null unless external.
    const Header& header;
    MetadataRegions& regions;
    ClusterMap& map;
    CompressedClusters& compressed;
    MappingUsers& users;
    std::unique_ptr<RefcountRepair> repair;  // Null unless the image is dirty.
    bool wipes_freed;  // Overwrite clusters with zeros before they are free.
  };

  // Borrows everything but the repair. Throws as Refcounts() does.
  explicit TableUpdates(Parts parts);

  // Protects the tables' changes and the refcounts. Held across reading tables
  // that are not in memory, and across the making of new ones, because nobody
  // else could go on without them.
  std::mutex& mutex() { return mutex_; }

  // While mutex() is held:
  Refcounts& refcounts() { return refcounts_; }

  // Gives the L2 table of L1 entry `l1_index`, made or copied if need be so
  // that no snapshot shares it, and pins the slice with its entry `index`.
  // Nothing if the cache has no room for that before the next Flush(). Throws
  // IoError and CorruptImage.
  std::optional<HostOffset> PinEntry(uint64_t l1_index, uint64_t index);
  void UnpinEntry(HostOffset table, uint64_t index);

  // Notes that entries no longer refer to [host, host + length), once. The
  // clusters are freed when the file says so too. `punch` gives the space back
  // to the host.
  void Free(HostOffset host, uint64_t length, bool punch);

  // True if so much has gathered that a Flush() should come first.
  bool is_full() const;

  // Without mutex():

  // Makes the image one that can be changed: repairs the refcounts if it was
  // dirty, and then says so in the header, durably; clears the autoclear bits
  // that we do not maintain. To be called before each change, and before
  // anything is allocated; does something only the first time. Throws
  // CorruptImage and IoError.
  void PrepareForChanges() {
    if (!prepared_.load(std::memory_order_acquire)) Prepare();
  }

  // Makes all that was written before the call durable, tables included. One
  // caller's work serves all who wait. Not to be called inside a section of
  // MappingUsers. Throws IoError; then nothing is forgotten.
  void Flush();

 private:
  struct Freed {
    HostOffset host;
    uint64_t length;
    bool punch;
  };
  struct Batch {
    std::vector<Refcounts::Change> refcounts;
    std::vector<L2Cache::ChangedSlice> slices;
    std::set<uint64_t> l1_indices;
    std::vector<uint64_t> l1_entries;  // Of l1_indices, in their order.
    std::vector<Freed> freed;
  };

  void Prepare();
  void WriteFeatures();
  HostOffset MakeTable(uint64_t l1_index, HostOffset shared);
  void Commit();
  Batch TakeBatch();
  void PutBack(Batch batch);
  void WriteInOrder(const Batch& batch);
  void WriteSlices(const std::vector<L2Cache::ChangedSlice>& slices);
  void FlushFiles();
  void ApplyFreed(const std::vector<Freed>& freed);
  void Punch(const Freed& freed);
  void LetGoOf(uint64_t cluster);
  void WriteRefcounts();

  const std::string file_name_;
  ResizableDevice& file_;
  ResizableDevice* const data_file_;
  const uint64_t cluster_size_;
  const bool extended_l2_;
  const uint64_t incompatible_features_;
  const uint64_t autoclear_features_;
  const uint32_t version_;
  const bool wipes_freed_;
  MetadataRegions& regions_;
  ClusterMap& map_;
  CompressedClusters& compressed_;
  MappingUsers& users_;

  // One commits at a time; taken before mutex_. Held across the barriers, which
  // is what those who wait for it want.
  std::mutex commit_mutex_;
  std::atomic<uint64_t> requested_ = 0;  // Calls of Flush() until now.
  uint64_t covered_ = 0;  // Guarded by commit_mutex_: of those, the finished.
  std::atomic<bool> prepared_ = false;
  std::unique_ptr<RefcountRepair> repair_;  // Guarded by commit_mutex_.

  std::mutex mutex_;
  // Guarded by mutex_:
  Refcounts refcounts_;
  std::set<uint64_t> changed_l1_;  // Indices.
  std::vector<Freed> freed_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_TABLE_UPDATES_H_
