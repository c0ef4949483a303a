#ifndef PELLUCID_ENGINE_QCOW2_ALLOCATION_H_
#define PELLUCID_ENGINE_QCOW2_ALLOCATION_H_

#include <cstdint>
#include <string>

#include "engine/block_device.h"
#include "engine/qcow2/header.h"

namespace pellucid::qcow2 {

// How many clusters of the active state have a place in the image or its data
// file.
struct Allocation {
  uint64_t clusters = 0;    // Compressed ones among them.
  uint64_t compressed = 0;  // They are never encrypted.
  std::string unreadable;   // Why a table was left out; empty if none was.
};

// Reads the active L1 table and each of its L2 tables once, but for holes of the
// file. Entries that cannot be what they should are counted all the same: checks
// are for others.
Allocation CountAllocation(BlockDevice& file, const Header& header);

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_ALLOCATION_H_
