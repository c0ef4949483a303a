#include "engine/apple_partitions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/big_endian.h"
#include "engine/found_partitions.h"
#include "engine/mac_roman.h"

namespace pellucid {
namespace {

// Block 0, the driver descriptor.
constexpr uint16_t kDriverSignature = 0x4552;  // "ER"
constexpr size_t kBlockSize = 2;

// An entry, by its byte. Each has a block of its own, from block 1 on.
constexpr uint16_t kEntrySignature = 0x504d;  // "PM"
constexpr size_t kMapBlocks = 4;
constexpr size_t kFirstBlock = 8;
constexpr size_t kBlocks = 12;
constexpr size_t kName = 16;
constexpr size_t kType = 48;
constexpr size_t kTextBytes = 32;
constexpr size_t kEntryBytes = 80;
constexpr std::string_view kTypeOfMap = "Apple_partition_map";

// Those of CDs are in use beside those of disks.
constexpr std::array<uint64_t, 4> kBlockSizes = {512, 2048, 1024, 4096};
// Apple makes maps of 63 entries, and Linux reads as many as this.
constexpr uint32_t kMaxEntries = 256;

using Entry = std::array<std::byte, kEntryBytes>;

bool HasSignature(std::span<const std::byte> bytes, uint16_t signature) {
  return LoadBigEndian<uint16_t>(bytes, 0) == signature;
}

// Nothing if the disk ends before it.
std::optional<Entry> ReadEntry(BlockDevice& disk, uint64_t block_size,
                               uint64_t block) {
  if (block_size * block + kEntryBytes > disk.size()) return std::nullopt;
  Entry entry;
  disk.Read(block_size * block, entry);
  if (!HasSignature(entry, kEntrySignature)) return std::nullopt;
  return entry;
}

std::string TypeOf(std::span<const std::byte> entry) {
  return Utf8FromMacRoman(entry.subspan(kType, kTextBytes));
}

PartitionTable ReadMap(BlockDevice& disk, uint64_t block_size,
                       const Entry& first) {
  FoundPartitions found(disk);
  const auto map_blocks = LoadBigEndian<uint32_t>(first, kMapBlocks);
  if (map_blocks > kMaxEntries) {
    found.Warn(
        fmt::format("the partition map has {} entries; the first {} are "
                    "read",
                    map_blocks, kMaxEntries));
  }
  const uint32_t entries = std::min(map_blocks, kMaxEntries);
  for (uint32_t number = 1; number <= entries; ++number) {
    const auto entry = ReadEntry(disk, block_size, number);
    if (!entry) {
      found.Warn(
          fmt::format("entry {} of {} of the partition map has no "
                      "signature",
                      number, entries));
      continue;
    }
    const uint64_t first_block = LoadBigEndian<uint32_t>(*entry, kFirstBlock);
    const uint64_t blocks = LoadBigEndian<uint32_t>(*entry, kBlocks);
    if (blocks == 0) continue;
    found.Add({.number = number,
               .label = Utf8FromMacRoman(
                   std::span(*entry).subspan(kName, kTextBytes)),
               .scheme = "mac",
               .type = TypeOf(*entry)},
              {.first = first_block,
               .last = first_block + blocks - 1,
               .sector_size = block_size});
  }
  return std::move(found).Take();
}

bool DescribesItself(const PartitionTable& map) {
  return std::ranges::any_of(map.partitions, [](const Partition& partition) {
    return partition.type == kTypeOfMap;
  });
}

}  // namespace

std::optional<PartitionTable> ReadAppleMap(BlockDevice& disk) {
  std::array<std::byte, 4> descriptor;
  if (disk.size() < descriptor.size()) return std::nullopt;
  disk.Read(0, descriptor);
  const bool has_descriptor = HasSignature(descriptor, kDriverSignature);
  const uint64_t said = LoadBigEndian<uint16_t>(descriptor, kBlockSize);
  std::vector<uint64_t> sizes(kBlockSizes.begin(), kBlockSizes.end());
  if (has_descriptor) {
    // The one that it says first, if it is possible.
    std::stable_partition(sizes.begin(), sizes.end(), [&](uint64_t block_size) {
      return block_size == said;
    });
  }
  struct Map {
    uint64_t block_size = 0;
    PartitionTable table;
  };
  std::optional<Map> map;
  for (const uint64_t block_size : sizes) {
    const auto first = ReadEntry(disk, block_size, 1);
    if (!first) continue;
    PartitionTable table = ReadMap(disk, block_size, *first);
    const bool describes_itself = DescribesItself(table);
    if (describes_itself || (has_descriptor && !map)) {
      map = {.block_size = block_size, .table = std::move(table)};
    }
    // What else is one is entries of it, seen with a wrong block size.
    if (describes_itself) break;
  }
  if (!map) return std::nullopt;
  std::vector<std::string>& warnings = map->table.warnings;
  if (!has_descriptor) {
    warnings.insert(warnings.begin(),
                    "the driver descriptor in front of the partition map is "
                    "missing");
  } else if (map->block_size != said) {
    warnings.insert(
        warnings.begin(),
        fmt::format("the driver descriptor speaks of blocks of {} bytes, but "
                    "those of the partition map have {}",
                    said, map->block_size));
  }
  return std::move(map->table);
}

}  // namespace pellucid
