#ifndef PELLUCID_ENGINE_BSD_LABEL_H_
#define PELLUCID_ENGINE_BSD_LABEL_H_

#include <optional>

#include "engine/block_device.h"
#include "engine/found_partitions.h"
#include "engine/partition_table.h"

namespace pellucid {

// The partitions of a BSD label, disklabel(5), of either byte order. Entries of
// the type "unused" are left out: among them is the one that is the whole disk.

// Of a label in sector 1 of the disk, or at byte 64 of sector 0, as on Alpha.
// For ReadPartitionTable(), which promises the same.
std::optional<PartitionTable> ReadBsdLabel(BlockDevice& disk);

// Of a label in sector 1 of a partition of FreeBSD, OpenBSD or NetBSD, numbered
// from `next` on as Linux does: those that lie inside of `parent` and are not
// among `found` already. Their sectors count from the beginning of the disk,
// but from that of the partition if FreeBSD's label has c, which is all of it,
// begin at 0. Gives the number that is free then. Throws what disk.Read() does.
unsigned AddBsdPartitions(BlockDevice& disk, const ParentPartition& parent,
                          unsigned next, FoundPartitions& found);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_BSD_LABEL_H_
