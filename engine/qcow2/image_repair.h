#ifndef PELLUCID_ENGINE_QCOW2_IMAGE_REPAIR_H_
#define PELLUCID_ENGINE_QCOW2_IMAGE_REPAIR_H_

#include <string>

#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// Makes all refcounts and the copied flags of the active state anew from what
// refers to clusters, by one write to the header's sector: a power cut leaves
// the image as it was, or repaired. Frees leaks; clears the dirty bit and, if
// nothing else is wrong, the corrupt bit. No guest byte changes, of no snapshot
// either. What overlapped with a table that is written anew does so no longer,
// but may have to be counted once more: check again, and repair again.
//
// Throws CorruptImage, with nothing changed, if an entry leaves open what it
// refers to or a table is cut off; and what TableSwitch throws.
void RepairImage(ResizableDevice& file, const std::string& file_name);

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_IMAGE_REPAIR_H_
