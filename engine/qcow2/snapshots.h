#ifndef PELLUCID_ENGINE_QCOW2_SNAPSHOTS_H_
#define PELLUCID_ENGINE_QCOW2_SNAPSHOTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/image_info.h"
#include "engine/qcow2/header.h"

namespace pellucid::qcow2 {

// An entry of the snapshot table, checked.
struct Snapshot {
  SnapshotInfo info;
  uint64_t entry_offset = 0;  // Of this entry in the file.
  uint64_t l1_table_offset = 0;
  uint32_t l1_size = 0;
};

// Reads the snapshot table ("Snapshots" in the specification). The L1 tables
// themselves are checked when a snapshot is opened. Throws CorruptImage and
// IoError.
std::vector<Snapshot> ReadSnapshots(BlockDevice& file,
                                    const std::string& file_name,
                                    const Header& header);

// The snapshot with that id or, if there is none, with that name. Throws
// UsageError, which lists what there is.
const Snapshot& FindSnapshot(const std::vector<Snapshot>& snapshots,
                             const std::string& id_or_name,
                             const std::string& file_name);

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_SNAPSHOTS_H_
