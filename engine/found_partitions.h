#ifndef PELLUCID_ENGINE_FOUND_PARTITIONS_H_
#define PELLUCID_ENGINE_FOUND_PARTITIONS_H_

#include <cstdint>
#include <string>
#include <utility>

#include "engine/block_device.h"
#include "engine/partition_table.h"

namespace pellucid {

// Collects what a partition table says, cut to the disk: places outside of it
// are left out or cut, each with a warning. Not synchronised.
class FoundPartitions {
 public:
  explicit FoundPartitions(const BlockDevice& disk) : disk_size_(disk.size()) {}

  // Sectors of `sector_size` bytes, from `first` to `last`, which may be any
  // numbers: what is not on the disk or ends before it begins is left out.
  struct Place {
    uint64_t first = 0;
    uint64_t last = 0;
    uint64_t sector_size = 512;
  };
  // `partition` without its place.
  void Add(Partition partition, const Place& place);

  // Keeps the first few.
  void Warn(std::string warning);

  const PartitionTable& table() const { return table_; }
  PartitionTable Take() && { return std::move(table_); }

 private:
  const uint64_t disk_size_;
  PartitionTable table_;
};

// A primary partition of an MBR, in which a label may be with partitions of its
// own.
struct ParentPartition {
  unsigned number = 0;
  uint8_t type = 0;
  uint64_t first_sector = 0;  // Of 512 bytes; before it is cut to the disk.
  uint64_t sectors = 0;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_FOUND_PARTITIONS_H_
