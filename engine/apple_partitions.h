#ifndef PELLUCID_ENGINE_APPLE_PARTITIONS_H_
#define PELLUCID_ENGINE_APPLE_PARTITIONS_H_

#include <optional>

#include "engine/block_device.h"
#include "engine/partition_table.h"

namespace pellucid {

// The partitions of an Apple partition map ("Inside Macintosh: Devices", SCSI
// Manager, "The Partition Map"), in blocks of 512 to 4096 bytes. For
// ReadPartitionTable(), which promises the same.
//
// The map says of itself that it is one, and free space is in it as well: all
// of this is shown. A map without a driver descriptor in front of it counts if
// it has an entry for itself.
std::optional<PartitionTable> ReadAppleMap(BlockDevice& disk);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_APPLE_PARTITIONS_H_
