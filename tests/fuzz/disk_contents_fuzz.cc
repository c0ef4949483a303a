// What a disk says of itself: its partition table, and the signatures of file
// systems on it and on its partitions; also where something has overwritten the
// rest of it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/device_window.h"
#include "engine/partition_table.h"
#include "engine/plaintext_remains.h"
#include "engine/volume_signature.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/sparse_device.h"

using namespace pellucid;

namespace {

// As if the disk were what a LUKS volume has from before it was one; no more of
// it than signatures take, or there would be little time for anything else.
void LookForRemains(BlockDevice& disk) {
  std::vector<std::byte> bytes(
      std::min<uint64_t>(disk.size(), uint64_t{8} << 10));
  disk.Read(0, bytes);
  RemainsCollector collector;
  // In two pieces, the later one first.
  const size_t half = bytes.size() / 2;
  constexpr auto kPlace = PlaintextRemains::Place::kPayload;
  collector.Note(half, std::span(bytes).subspan(half), kPlace);
  collector.Note(0, std::span(bytes).first(half), kPlace);
  const PlaintextRemains remains = collector.Take();
  Require(remains.examined_bytes == bytes.size(), "bytes that are not judged");
  uint64_t end = 0;
  uint64_t listed = 0;
  for (const PlaintextRemains::Range& range : remains.ranges) {
    Require(range.length != 0 && (end == 0 || range.offset > end),
            "ranges that are empty or not in order");
    end = range.offset + range.length;
    listed += range.length;
  }
  Require(end <= bytes.size(), "a range that is not inside the disk");
  Require(remains.has_more_ranges || listed >= remains.plain_bytes,
          "bytes that are counted and not listed");
  Require(remains.plain_bytes + remains.zero_bytes <= remains.examined_bytes,
          "bytes that are counted twice");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  SparseDevice disk({data, size});
  FindVolumeSignatures(disk);
  LookForRemains(disk);
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
