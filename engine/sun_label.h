#ifndef PELLUCID_ENGINE_SUN_LABEL_H_
#define PELLUCID_ENGINE_SUN_LABEL_H_

#include <optional>

#include "engine/block_device.h"
#include "engine/found_partitions.h"
#include "engine/partition_table.h"

namespace pellucid {

// The slices of a label of Sun with its volume table of contents (dk_label and
// vtoc in Solaris's headers). One of them usually is the whole disk.

// Of SPARC's label in sector 0, or that of x86 in sector 1, of either byte
// order. For ReadPartitionTable(), which promises the same.
std::optional<PartitionTable> ReadSunLabel(BlockDevice& disk);

// Of a label in sector 1 of a partition of Solaris, numbered from `next` on as
// Linux does. Gives the number that is free then. Throws what disk.Read() does.
unsigned AddSunPartitions(BlockDevice& disk, const ParentPartition& parent,
                          unsigned next, FoundPartitions& found);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_SUN_LABEL_H_
