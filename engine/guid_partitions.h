#ifndef PELLUCID_ENGINE_GUID_PARTITIONS_H_
#define PELLUCID_ENGINE_GUID_PARTITIONS_H_

#include <cstdint>
#include <optional>

#include "engine/block_device.h"
#include "engine/partition_table.h"

namespace pellucid {

// The partitions of a GPT: UEFI specification, "GUID Partition Table Disk
// Layout". For ReadPartitionTable(), which promises the same.
//
// `protective_end` is the last 512-byte sector that the protective MBR speaks
// of: where the backup was when the disk had another size. Without a protective
// MBR there is a GPT only if its first copy is valid; with one, always, if only
// to say what is wrong with it.
std::optional<PartitionTable> ReadGuidPartitions(
    BlockDevice& disk, std::optional<uint64_t> protective_end);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_GUID_PARTITIONS_H_
