// What a disk says of itself: its partition table, and the signatures of file
// systems on it and on its partitions.

#include <algorithm>
#include <optional>

#include "engine/device_window.h"
#include "engine/partition_table.h"
#include "engine/volume_signature.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/sparse_device.h"

using namespace pellucid;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  SparseDevice disk({data, size});
  FindVolumeSignatures(disk);
  const std::optional<PartitionTable> table = ReadPartitionTable(disk);
  if (!table) return 0;
  constexpr size_t kMostLookedAt = 16;
  size_t looked_at = 0;
  for (const Partition& partition : table->partitions) {
    Require(partition.number != 0, "a partition without a number");
    Require(partition.size != 0, "an empty partition");
    Require(partition.offset < disk.size() &&
                partition.size <= disk.size() - partition.offset,
            "a partition that is not inside the disk");
    if (++looked_at > kMostLookedAt) continue;
    WindowReader volume(disk, partition.offset, partition.size);
    FindVolumeSignatures(volume);
  }
  Require(std::ranges::is_sorted(table->partitions, {}, &Partition::number),
          "partitions that are not in order");
  return 0;
}
