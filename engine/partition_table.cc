#include "engine/partition_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "engine/apple_partitions.h"
#include "engine/bsd_label.h"
#include "engine/found_partitions.h"
#include "engine/guid_partitions.h"
#include "engine/little_endian.h"
#include "engine/sun_label.h"

namespace pellucid {
namespace {

constexpr uint64_t kSectorSize = 512;
constexpr size_t kEntriesAt = 446;
constexpr size_t kEntryBytes = 16;
constexpr size_t kSignatureAt = 510;
constexpr uint16_t kSignature = 0xaa55;
constexpr uint8_t kProtective = 0xee;
constexpr unsigned kFirstLogical = 5;
// Linux ends a chain after 100 records without a partition; nobody has this
// many with one.
constexpr size_t kMaxRecords = 256;

// An entry of an MBR or of an extended boot record, which look the same.
struct Entry {
  uint8_t boot_indicator = 0;
  uint8_t type = 0;
  uint32_t first_sector = 0;
  uint32_t sectors = 0;

  bool is_used() const { return type != 0 && sectors != 0; }
  bool is_extended() const {
    return type == 0x05 || type == 0x0f || type == 0x85;
  }
};

struct BootRecord {
  std::array<std::byte, kSectorSize> bytes;
  std::array<Entry, 4> entries;

  bool has_signature() const {
    return LoadLittleEndian<uint16_t>(bytes, kSignatureAt) == kSignature;
  }
};

BootRecord ReadBootRecord(BlockDevice& disk, uint64_t sector) {
  BootRecord record;
  disk.Read(sector * kSectorSize, record.bytes);
  for (size_t i = 0; i < record.entries.size(); ++i) {
    const std::span entry = std::span<const std::byte>(record.bytes)
                                .subspan(kEntriesAt + i * kEntryBytes);
    record.entries[i] = {.boot_indicator = std::to_integer<uint8_t>(entry[0]),
                         .type = std::to_integer<uint8_t>(entry[4]),
                         .first_sector = LoadLittleEndian<uint32_t>(entry, 8),
                         .sectors = LoadLittleEndian<uint32_t>(entry, 12)};
  }
  return record;
}

// The first sector of a FAT or NTFS file system has the signature too, and in
// place of the entries the end of a program or, since mkfs.fat makes them, one
// entry that is the file system itself.
bool IsTable(const BootRecord& record) {
  const auto is_plausible = [](const Entry& entry) {
    return (entry.boot_indicator == 0 || entry.boot_indicator == 0x80) &&
           (!entry.is_used() || entry.first_sector != 0);
  };
  return record.has_signature() &&
         std::ranges::all_of(record.entries, is_plausible) &&
         std::ranges::any_of(record.entries, &Entry::is_used);
}

class Reader {
 public:
  explicit Reader(BlockDevice& disk)
      : disk_(disk), disk_sectors_(disk.size() / kSectorSize), found_(disk) {}

  PartitionTable Read(const BootRecord& mbr) && {
    for (unsigned i = 0; i < mbr.entries.size(); ++i) {
      const Entry& entry = mbr.entries[i];
      if (entry.is_used() && !entry.is_extended()) Add(i + 1, 0, entry);
    }
    for (const Entry& entry : mbr.entries) {
      if (entry.is_used() && entry.is_extended()) FollowChain(entry);
    }
    for (unsigned i = 0; i < mbr.entries.size(); ++i) {
      if (mbr.entries[i].is_used()) AddInnerPartitions(i + 1, mbr.entries[i]);
    }
    return std::move(found_).Take();
  }

 private:
  // Sectors count from `base`.
  void Add(unsigned number, uint64_t base, const Entry& entry) {
    const uint64_t first = base + entry.first_sector;
    found_.Add({.number = number,
                .label = "",
                .scheme = "dos",
                .type = fmt::format("0x{:02x}", entry.type)},
               {.first = first, .last = first + entry.sectors - 1});
  }

  // Those of a label inside of a primary partition.
  void AddInnerPartitions(unsigned number, const Entry& entry) {
    const ParentPartition parent = {.number = number,
                                    .type = entry.type,
                                    .first_sector = entry.first_sector,
                                    .sectors = entry.sectors};
    next_free_ = AddBsdPartitions(disk_, parent, next_free_, found_);
    next_free_ = AddSunPartitions(disk_, parent, next_free_, found_);
  }

  // The records of an extended partition: each has a logical partition, from
  // the record on, and the place of the next record, from the first one on.
  void FollowChain(const Entry& extended) {
    const uint64_t first = extended.first_sector;
    for (uint64_t sector = first;;) {
      if (sector >= disk_sectors_) {
        return found_.Warn(fmt::format(
            "the chain of logical partitions leads to sector {} of {}", sector,
            disk_sectors_));
      }
      if (!visited_.insert(sector).second) {
        return found_.Warn(fmt::format(
            "the chain of logical partitions leads back to sector {}", sector));
      }
      if (visited_.size() > kMaxRecords) {
        return found_.Warn(fmt::format(
            "the chain of logical partitions is longer than {} records",
            kMaxRecords));
      }
      const BootRecord record = ReadBootRecord(disk_, sector);
      if (!record.has_signature()) {
        return found_.Warn(fmt::format(
            "the chain of logical partitions ends in sector {}, which is no "
            "extended boot record",
            sector));
      }
      const Entry* next = nullptr;
      for (size_t i = 0; i < record.entries.size(); ++i) {
        const Entry& entry = record.entries[i];
        if (!entry.is_used()) continue;
        if (entry.is_extended()) {
          if (next == nullptr) next = &entry;
        } else if (i < 2 || IsWithin(extended, sector, entry)) {
          // Some programs use only two of the entries, and leave something in
          // the others.
          Add(next_free_++, sector, entry);
        }
      }
      if (next == nullptr) return;
      sector = first + next->first_sector;
    }
  }

  static bool IsWithin(const Entry& extended, uint64_t base,
                       const Entry& entry) {
    const uint64_t begin = base + entry.first_sector;
    return begin >= extended.first_sector &&
           begin + entry.sectors <=
               uint64_t{extended.first_sector} + extended.sectors;
  }

  BlockDevice& disk_;
  const uint64_t disk_sectors_;
  FoundPartitions found_;
  std::set<uint64_t> visited_;
  unsigned next_free_ = kFirstLogical;
};

std::optional<PartitionTable> ReadMbrOrGpt(BlockDevice& disk) {
  const BootRecord mbr = ReadBootRecord(disk, 0);
  if (!mbr.has_signature()) return ReadGuidPartitions(disk, std::nullopt);
  if (!IsTable(mbr)) return std::nullopt;
  const auto protective =
      std::ranges::find(mbr.entries, kProtective, &Entry::type);
  if (protective != mbr.entries.end()) {
    return ReadGuidPartitions(
        disk, uint64_t{protective->first_sector} + protective->sectors - 1);
  }
  return Reader(disk).Read(mbr);
}

}  // namespace

std::optional<PartitionTable> ReadPartitionTable(BlockDevice& disk) {
  if (disk.size() < kSectorSize) return std::nullopt;
  // An image for CDs may have an Apple map behind an MBR; Linux, too, then
  // takes the MBR.
  for (const auto read :
       {ReadMbrOrGpt, ReadAppleMap, ReadSunLabel, ReadBsdLabel}) {
    if (auto table = read(disk)) return table;
  }
  return std::nullopt;
}

}  // namespace pellucid
