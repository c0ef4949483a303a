#ifndef PELLUCID_ENGINE_QCOW2_TABLE_SWITCH_H_
#define PELLUCID_ENGINE_QCOW2_TABLE_SWITCH_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/qcow2/cluster_set.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/reference_scan.h"
#include "engine/qcow2/snapshots.h"
#include "engine/qcow2/spare_clusters.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// Another state of an image, in terms of tables that its file has already.
struct NextTables {
  // The image's own, but for size, feature bits, and l1_table_offset and
  // l1_size: the table that becomes the active one.
  Header header;
  // All snapshots that there are to be, their L1 tables as they are now; and
  // their entries in the snapshot table, padded to 8 bytes.
  std::vector<Snapshot> snapshots;
  std::vector<std::vector<std::byte>> records;
  // The last snapshot is new, and has the same entries as the active state: it
  // gets a table of its own.
  bool has_new_snapshot = false;
  // Entries of the active L1 table, if there are to be more: empty ones.
  uint32_t l1_size = 0;
  // What is mapped from here on, a multiple of the cluster size, is let go.
  uint64_t guest_end = UINT64_MAX;
};

// What of an image is believed.
enum class Trust {
  kRefcounts,   // Refcounts and copied flags too, unless the image is dirty.
  kReferences,  // Only what refers to clusters.
};

// Takes an image from one state to another by a single write to one sector.
//
// Whatever has to change (L1 table, L2 tables whose copied flags change,
// snapshot table, all refcounts) is written to clusters that nothing uses, and
// made durable there. Then the sector of the header that names all of them is
// written. A power cut leaves the old state or the new one, each without a
// single leak, and nothing in between (docs/crash-consistency.md).
//
// It takes as much room as the tables that change and the refcounts; of that
// nothing remains in use. Memory: 12 bytes for each cluster in use, as
// ReferenceScan has it, and the L1 tables. For one thread, with the file locked
// against everybody else.
class TableSwitch {
 public:
  // Borrows `file`. Reads all tables, changes nothing. Throws CorruptImage for
  // an image that has a fault beyond leaks, and IoError. A dirty image may have
  // any refcounts and copied flags; the switch makes them right. So may one
  // whose references alone are trusted; its refcount table may be anything too,
  // and tables may be used as something else besides. Leaks are freed then.
  TableSwitch(ResizableDevice& file, std::string file_name,
              Trust trust = Trust::kRefcounts);

  const Header& header() const { return header_; }
  const std::vector<Snapshot>& snapshots() const { return snapshots_; }
  // The entries of the snapshot table.
  const std::vector<std::vector<std::byte>>& records() const {
    return records_;
  }
  const std::string& file_name() const { return file_name_; }
  // Nothing but refcounts and copied flags can be wrong.
  bool is_sound() const { return is_sound_; }
  // The present state, for a change of it. Of the autoclear features only those
  // stay that are right as long as the guest's bytes do not change.
  NextTables Present() const;
  // Entries that the L1 table of a disk of `size` bytes needs. Throws
  // UsageError if the format has no table so long.
  uint32_t L1EntriesFor(uint64_t size) const;

  // Makes `next` durable; once only. Throws Unsupported if refcounts of the
  // image's width cannot count it, and IoError; unless the write of the header
  // itself has failed, nothing is changed then.
  void SwitchTo(NextTables next);

 private:
  // Whether one reference is all that its refcount will count; a leak stays.
  bool IsOwn(uint64_t offset, const ReferenceScan& references) const;
  void CheckIsSound();
  void MarkLeaked(uint64_t cluster);
  void CheckReferences();
  void ReadRecords();
  Header WriteTables(NextTables& next);
  std::vector<uint64_t> MakeL1(const NextTables& next,
                               const ReferenceScan& references);
  // The table for active L1 entry `index`, a new one if it has to change.
  uint64_t AdaptL2(uint64_t table, uint64_t index, const NextTables& next,
                   const ReferenceScan& references);
  uint64_t WriteL1(const std::vector<uint64_t>& entries);
  uint64_t WriteClusters(std::vector<std::byte> content);
  void WriteHeader(const Header& next);

  ResizableDevice& file_;
  const std::string file_name_;
  const Header header_;
  const uint64_t cluster_size_;
  const std::vector<Snapshot> snapshots_;
  const bool rebuilds_refcounts_;
  // Of the next state: the present refcounts are no part of it.
  const CountRefcounts count_refcounts_;
  std::vector<std::vector<std::byte>> records_;
  bool is_sound_ = true;
  ReferenceScan before_;
  SpareClusters spare_;
  ClusterSet leaked_;  // Clusters in use that are counted too often.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_TABLE_SWITCH_H_
