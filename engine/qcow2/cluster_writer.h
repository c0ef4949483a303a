#ifndef PELLUCID_ENGINE_QCOW2_CLUSTER_WRITER_H_
#define PELLUCID_ENGINE_QCOW2_CLUSTER_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/qcow2/cluster_data.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/compressed_clusters.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/mapping_users.h"
#include "engine/qcow2/metadata_regions.h"
#include "engine/qcow2/refcount_repair.h"
#include "engine/qcow2/table_updates.h"
#include "engine/range_locks.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// Changes the virtual disk of a qcow2 image. What is allocated to the active
// state alone is overwritten in its place, without a lock on the tables. For
// anything else (nothing there yet, zeros, compressed, shared with a snapshot,
// subclusters without data) new clusters are written first and entered into the
// tables then, so that a reader sees the old bytes or the new.
//
// Safe to call from many threads; requests that allocate in the same cluster
// wait for each other.
class ClusterWriter {
 public:
  struct Parts {
    std::string file_name;
    ResizableDevice& file;
    ResizableDevice* data_file;  // Null unless external.
    const Header& header;
    const std::vector<uint64_t>& l1_entries;
    const std::vector<Snapshot>& snapshots;
    BlockDevice* backing;  // Null without one.
    ClusterMap& map;
    ClusterData& data;
    CompressedClusters& compressed;
    MappingUsers& users;
    // The guest's view as it is now; zeros behind its end.
    ClusterData::Plaintext view;
    std::unique_ptr<RefcountRepair> repair;  // Null unless the image is dirty.
    bool wipes_freed = false;  // As TableUpdates has it.
  };

  // Borrows everything but the repair. Throws CorruptImage and IoError.
  explicit ClusterWriter(Parts parts);

  // See WritableDevice.
  void Write(uint64_t offset, std::span<const std::byte> in);
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode);
  void Flush() { updates_.Flush(); }

 private:
  // How far a step came. Without any progress the tables have changed under
  // it, or there was no room for their changes: it is to be done again, in the
  // second case after a flush.
  struct Step {
    uint64_t done = 0;
    bool needs_flush = false;
  };
  // A place in an L2 table.
  struct Place {
    uint64_t l1_index;
    uint64_t index;
  };
  // What the entry of a cluster says about writing to it.
  enum class Target {
    kNew,      // It has no place: a new one, with nothing to keep.
    kReplace,  // A new place, and all of the old content goes with it.
    kOwn,      // It has a place of its own, in which there is no data yet.
  };
  // A run of clusters that one request writes and enters into the tables.
  struct Plan {
    HostOffset host;  // Of the first cluster.
    uint64_t clusters = 0;
    uint64_t length = 0;  // Of the request's bytes; 0: nothing to allocate.
    uint64_t head = 0;    // Bytes to be written in front of it, and behind it.
    uint64_t tail = 0;
    HostClusters allocated;  // Given back if the writing fails.
  };

  // Calls step() in a section of users_ until `length` bytes are done.
  template <typename DoStep>
  void Repeat(uint64_t length, DoStep do_step);

  // Before data is written to a place that an entry names. Throws CorruptImage.
  void CheckPlace(HostOffset host, uint64_t length) const;
  Step WriteSome(GuestOffset guest, std::span<const std::byte> in);
  Step WriteAllocating(GuestOffset guest, std::span<const std::byte> in);
  Plan MakePlan(HostOffset table, GuestOffset guest, uint64_t length);
  Plan PlanOwn(HostOffset host, uint64_t subclusters, GuestOffset guest,
               uint64_t length) const;
  Plan PlanExternal(HostOffset table, GuestOffset guest, uint64_t length);
  void Enter(HostOffset table, GuestOffset guest, const Plan& plan);
  Target TargetOf(const L2Entry& entry) const;
  bool HasHost(const L2Entry& entry) const;
  void CheckOld(HostOffset table, uint64_t index, const L2Entry& entry) const;
  void FreeOld(HostOffset table, uint64_t index, const L2Entry& entry,
               bool punch);

  Step ZeroSome(GuestOffset guest, uint64_t length, ZeroMode mode);
  Step WriteZeroBytes(GuestOffset guest, uint64_t length);
  Step ZeroEntries(GuestOffset guest, uint64_t length, ZeroMode mode);
  void ZeroEntry(HostOffset table, GuestOffset guest, uint64_t length,
                 ZeroMode mode);
  bool HasBackingAt(GuestOffset guest) const;

  Place PlaceOf(GuestOffset guest) const {
    return {.l1_index = guest.value / l2_coverage_,
            .index = guest.value % l2_coverage_ / cluster_size_};
  }
  // How many bytes from `guest` on have their entries in one slice.
  uint64_t BytesInSlice(GuestOffset guest) const;
  uint64_t InCluster(GuestOffset guest) const {
    return guest.value % cluster_size_;
  }

  const std::string file_name_;
  BlockDevice& file_;
  ResizableDevice* const data_file_;
  const uint64_t size_;
  const uint64_t cluster_size_;
  const uint64_t l2_coverage_;
  const uint32_t version_;
  const bool extended_l2_;
  // What can be allocated by itself: a cluster or a subcluster.
  const uint64_t unit_;
  BlockDevice* const backing_;
  ClusterMap& map_;
  ClusterData& data_;
  MappingUsers& users_;
  const ClusterData::Plaintext view_;
  MetadataRegions regions_;
  TableUpdates updates_;
  RangeLocks in_flight_;  // Numbers of guest clusters whose entries change.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_CLUSTER_WRITER_H_
