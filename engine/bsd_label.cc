#include "engine/bsd_label.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/either_endian.h"

namespace pellucid {
namespace {

constexpr uint64_t kSectorSize = 512;
constexpr uint8_t kFreeBsd = 0xa5;
constexpr uint8_t kOpenBsd = 0xa6;
constexpr uint8_t kNetBsd = 0xa9;

// Fields of the label, by their byte.
constexpr uint32_t kMagic = 0x82564557;
constexpr size_t kFirstMagic = 0;
constexpr size_t kSecSize = 40;
constexpr size_t kSecondMagic = 132;
constexpr size_t kPartitionCount = 138;
constexpr size_t kPartitions = 148;

// Fields of a partition.
constexpr size_t kSize = 0;
constexpr size_t kOffset = 4;
constexpr size_t kFsType = 12;
constexpr size_t kPartitionBytes = 16;
constexpr uint8_t kUnused = 0;
constexpr size_t kWholePartition = 2;  // c

struct Label {
  struct Entry {
    uint64_t first_sector = 0;
    uint64_t sectors = 0;
    uint8_t fstype = kUnused;

    bool is_used() const { return fstype != kUnused && sectors != 0; }
    std::string type() const { return fmt::format("0x{:02x}", fstype); }
  };
  std::vector<Entry> entries;
  std::vector<std::string> warnings;
};

// All words of a label, its checksum among them, give 0.
bool HasChecksum(std::span<const std::byte> label) {
  std::array<std::byte, 2> sum = {};
  for (size_t i = 0; i < label.size(); ++i) sum[i % 2] ^= label[i];
  return sum == decltype(sum){};
}

// `bytes` are what is left of the sector from the label's place on.
std::optional<Label> ParseLabel(std::span<const std::byte> bytes) {
  const auto order = LoadBigEndian<uint32_t>(bytes, kFirstMagic) == kMagic
                         ? std::endian::big
                         : std::endian::little;
  if (LoadAs<uint32_t>(order, bytes, kFirstMagic) != kMagic ||
      LoadAs<uint32_t>(order, bytes, kSecondMagic) != kMagic) {
    return std::nullopt;
  }
  Label label;
  const size_t said = LoadAs<uint16_t>(order, bytes, kPartitionCount);
  const size_t count =
      std::min(said, (bytes.size() - kPartitions) / kPartitionBytes);
  if (count < said) {
    label.warnings.push_back(
        fmt::format("has {} partitions; the first {} are read", said, count));
  } else if (!HasChecksum(bytes.first(kPartitions + said * kPartitionBytes))) {
    label.warnings.emplace_back("has a wrong checksum");
  }
  const auto sector_size = LoadAs<uint32_t>(order, bytes, kSecSize);
  if (sector_size != kSectorSize) {
    label.warnings.push_back(
        fmt::format("speaks of sectors of {} bytes; they are taken for {}",
                    sector_size, kSectorSize));
  }
  for (size_t i = 0; i < count; ++i) {
    const auto entry =
        bytes.subspan(kPartitions + i * kPartitionBytes, kPartitionBytes);
    label.entries.push_back(
        {.first_sector = LoadAs<uint32_t>(order, entry, kOffset),
         .sectors = LoadAs<uint32_t>(order, entry, kSize),
         .fstype = std::to_integer<uint8_t>(entry[kFsType])});
  }
  return label;
}

// Within a sector, at byte `at`.
std::optional<Label> ReadLabel(BlockDevice& disk, uint64_t sector, size_t at) {
  if (sector >= disk.size() / kSectorSize) return std::nullopt;
  std::array<std::byte, kSectorSize> bytes;
  disk.Read(sector * kSectorSize, bytes);
  return ParseLabel(std::span<const std::byte>(bytes).subspan(at));
}

bool IsAmong(const PartitionTable& table, uint64_t first_sector,
             uint64_t sectors) {
  return std::ranges::any_of(table.partitions, [&](const Partition& known) {
    return known.offset == first_sector * kSectorSize &&
           known.size == sectors * kSectorSize;
  });
}

}  // namespace

std::optional<PartitionTable> ReadBsdLabel(BlockDevice& disk) {
  constexpr size_t kPlaceOnAlpha = 64;
  auto label = ReadLabel(disk, 1, 0);
  if (!label) label = ReadLabel(disk, 0, kPlaceOnAlpha);
  if (!label) return std::nullopt;
  FoundPartitions found(disk);
  for (const std::string& warning : label->warnings) {
    found.Warn("the BSD label " + warning);
  }
  for (unsigned i = 0; i < label->entries.size(); ++i) {
    const Label::Entry& entry = label->entries[i];
    if (!entry.is_used()) continue;
    found.Add(
        {.number = i + 1, .label = "", .scheme = "bsd", .type = entry.type()},
        {.first = entry.first_sector,
         .last = entry.first_sector + entry.sectors - 1});
  }
  return std::move(found).Take();
}

unsigned AddBsdPartitions(BlockDevice& disk, const ParentPartition& parent,
                          unsigned next, FoundPartitions& found) {
  if (parent.type != kFreeBsd && parent.type != kOpenBsd &&
      parent.type != kNetBsd) {
    return next;
  }
  const auto label = ReadLabel(disk, parent.first_sector + 1, 0);
  if (!label) return next;
  const auto warn = [&](const std::string& warning) {
    found.Warn(fmt::format("the BSD label in partition {} {}", parent.number,
                           warning));
  };
  for (const std::string& warning : label->warnings) warn(warning);
  const auto& entries = label->entries;
  const bool is_relative = parent.type == kFreeBsd &&
                           entries.size() > kWholePartition &&
                           entries[kWholePartition].first_sector == 0;
  const uint64_t base = is_relative ? parent.first_sector : 0;
  const uint64_t parent_end = parent.first_sector + parent.sectors;
  for (size_t i = 0; i < entries.size(); ++i) {
    const uint64_t first = base + entries[i].first_sector;
    const uint64_t end = first + entries[i].sectors;
    // OpenBSD repeats the partitions of the MBR in its label.
    if (!entries[i].is_used() ||
        IsAmong(found.table(), first, entries[i].sectors)) {
      continue;
    }
    if (first < parent.first_sector || end > parent_end) {
      warn(
          fmt::format("has {} outside of that partition, which is left out: "
                      "sectors {} to {}",
                      static_cast<char>('a' + i), first, end - 1));
      continue;
    }
    found.Add({.number = next++,
               .label = "",
               .scheme = "bsd",
               .type = entries[i].type()},
              {.first = first, .last = end - 1});
  }
  return next;
}

}  // namespace pellucid
