#include "engine/disk_partition.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "engine/errors.h"

namespace pellucid {

Partition FindPartition(BlockDevice& disk, unsigned number,
                        const std::string& disk_name) {
  const std::optional<PartitionTable> table = ReadPartitionTable(disk);
  if (!table) {
    throw UsageError(fmt::format(
        "{}: has no partition table, so that --partition makes no sense",
        disk_name));
  }
  const auto found =
      std::ranges::find(table->partitions, number, &Partition::number);
  if (found != table->partitions.end()) return *found;
  // A table can have hundreds.
  constexpr size_t kMostNamed = 16;
  std::vector<unsigned> numbers;
  for (const Partition& partition : table->partitions) {
    if (numbers.size() < kMostNamed) numbers.push_back(partition.number);
  }
  throw UsageError(fmt::format(
      "{}: has no partition {}; there {}{}", disk_name, number,
      numbers.empty() ? "is none"
                      : fmt::format("{} {}", numbers.size() == 1 ? "is" : "are",
                                    fmt::join(numbers, ", ")),
      table->partitions.size() > numbers.size() ? ", ..." : ""));
}

DiskPartition::DiskPartition(std::unique_ptr<WritableDevice> disk,
                             const Partition& partition)
    : writable_disk_(disk.get()),
      disk_(std::move(disk)),
      offset_(partition.offset),
      size_(partition.size) {}

DiskPartition::DiskPartition(std::unique_ptr<BlockDevice> disk,
                             const Partition& partition)
    : disk_(std::move(disk)),
      offset_(partition.offset),
      size_(partition.size) {}

Extent DiskPartition::ExtentAt(uint64_t offset, uint64_t max_length) {
  return disk_->ExtentAt(offset_ + offset,
                         std::min(max_length, size_ - offset));
}

}  // namespace pellucid
