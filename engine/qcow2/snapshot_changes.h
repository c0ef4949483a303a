#ifndef PELLUCID_ENGINE_QCOW2_SNAPSHOT_CHANGES_H_
#define PELLUCID_ENGINE_QCOW2_SNAPSHOT_CHANGES_H_

#include <cstdint>
#include <string>

#include "engine/qcow2/snapshots.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// Changes of the internal snapshots of a qcow2 image ("Snapshots" in the
// specification) whose file is locked for us alone and otherwise not open.
// Guest data is not touched, so no key is needed. Each is a TableSwitch: a
// power cut leaves what there was or what there is to be, and when the call
// returns it is durable. `file_name` is for messages.
//
// All throw CorruptImage for an image with damaged tables, Unsupported for what
// cannot have snapshots (external data files), and IoError.

// What a new snapshot is called, and when.
struct NewSnapshot {
  std::string name;
  uint32_t date_seconds = 0;  // Since 1970, UTC.
  uint32_t date_nanoseconds = 0;
};

// Keeps the active state as a snapshot, and gives its id. Throws UsageError for
// a name that is empty, over 255 bytes or in use, as a name or as an id, which
// the format would allow but nobody could tell apart; Unsupported if the
// refcounts are too narrow or there are too many snapshots.
std::string CreateSnapshot(ResizableDevice& file, const std::string& file_name,
                           const NewSnapshot& snapshot);

// Removes the snapshot of that id or name. Throws UsageError if there is none.
void DeleteSnapshot(ResizableDevice& file, const std::string& file_name,
                    const std::string& id_or_name);

// Makes the active state what it was when the snapshot was taken, its size
// included; the present one is lost. A saved state of a running machine stays
// with the snapshot. Dirty bitmaps, which would be wrong, are dropped. Throws
// UsageError if there is no such snapshot, and Unsupported if the size changes
// although other snapshots do not tell theirs (version 2).
void ApplySnapshot(ResizableDevice& file, const std::string& file_name,
                   const std::string& id_or_name);

// Whether the entry of a snapshot, as TableSwitch has it, tells the size of its
// disk; otherwise it is that of the image.
bool TellsItsSize(const std::vector<std::byte>& record);

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_SNAPSHOT_CHANGES_H_
