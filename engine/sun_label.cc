#include "engine/sun_label.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/either_endian.h"

namespace pellucid {
namespace {

constexpr uint64_t kSectorSize = 512;
// Also that of Linux's swap space.
constexpr uint8_t kSolaris = 0x82;
constexpr uint8_t kSolaris2 = 0xbf;

// What both labels have at the end of their sector.
constexpr uint16_t kMagic = 0xdabe;
constexpr size_t kMagicAt = 508;
constexpr uint32_t kSanity = 0x600ddeee;

// Fields of SPARC's, by their byte.
namespace sparc {
constexpr size_t kSliceCount = 140;
constexpr size_t kTags = 142;
constexpr size_t kTagBytes = 4;
constexpr size_t kSanityAt = 188;
constexpr size_t kTracks = 436;
constexpr size_t kSectorsPerTrack = 438;
constexpr size_t kSlices = 444;
constexpr size_t kSliceBytes = 8;
constexpr size_t kMaxSlices = 8;
}  // namespace sparc

// Fields of that of x86.
namespace x86 {
constexpr size_t kSanityAt = 12;
constexpr size_t kSliceCount = 30;
constexpr size_t kSlices = 72;
constexpr size_t kSliceBytes = 12;
constexpr size_t kMaxSlices = 16;
}  // namespace x86

using Sector = std::array<std::byte, kSectorSize>;

struct Slice {
  uint64_t first_sector = 0;
  uint64_t sectors = 0;
  uint16_t tag = 0;

  std::string type() const { return fmt::format("0x{:02x}", tag); }
};

struct Label {
  std::vector<Slice> slices;  // By number; some have no sectors.
  std::vector<std::string> warnings;
};

// All words of a label, its checksum among them, give 0.
bool HasChecksum(const Sector& label) {
  std::array<std::byte, 2> sum = {};
  for (size_t i = 0; i < label.size(); ++i) sum[i % 2] ^= label[i];
  return sum == decltype(sum){};
}

std::optional<Sector> ReadSector(BlockDevice& disk, uint64_t number) {
  if (number >= disk.size() / kSectorSize) return std::nullopt;
  Sector sector;
  disk.Read(number * kSectorSize, sector);
  return sector;
}

size_t CountOf(size_t said, size_t most, Label& label) {
  if (said > most) {
    label.warnings.push_back(
        fmt::format("has {} slices; the first {} are read", said, most));
  }
  return std::min(said, most);
}

std::optional<Label> ParseSparcLabel(const Sector& bytes) {
  // Labels older than the table of contents have zeros in its place.
  const bool has_contents =
      LoadBigEndian<uint32_t>(bytes, sparc::kSanityAt) == kSanity;
  const bool has_checksum = HasChecksum(bytes);
  if (LoadBigEndian<uint16_t>(bytes, kMagicAt) != kMagic ||
      (!has_contents && !has_checksum)) {
    return std::nullopt;
  }
  Label label;
  if (!has_checksum) label.warnings.emplace_back("has a wrong checksum");
  const size_t count =
      has_contents ? CountOf(LoadBigEndian<uint16_t>(bytes, sparc::kSliceCount),
                             sparc::kMaxSlices, label)
                   : sparc::kMaxSlices;
  const uint64_t sectors_per_cylinder =
      uint64_t{LoadBigEndian<uint16_t>(bytes, sparc::kTracks)} *
      LoadBigEndian<uint16_t>(bytes, sparc::kSectorsPerTrack);
  if (sectors_per_cylinder == 0) {
    label.warnings.emplace_back(
        "has cylinders without sectors, so that no slice has a place");
    return label;
  }
  for (size_t i = 0; i < count; ++i) {
    const size_t slice = sparc::kSlices + i * sparc::kSliceBytes;
    const size_t tag = sparc::kTags + i * sparc::kTagBytes;
    label.slices.push_back(
        {.first_sector =
             LoadBigEndian<uint32_t>(bytes, slice) * sectors_per_cylinder,
         .sectors = LoadBigEndian<uint32_t>(bytes, slice + 4),
         .tag = LoadBigEndian<uint16_t>(bytes, tag)});
  }
  return label;
}

std::optional<Label> ParseX86Label(const Sector& bytes) {
  const auto order = LoadBigEndian<uint16_t>(bytes, kMagicAt) == kMagic
                         ? std::endian::big
                         : std::endian::little;
  if (LoadAs<uint16_t>(order, bytes, kMagicAt) != kMagic ||
      LoadAs<uint32_t>(order, bytes, x86::kSanityAt) != kSanity) {
    return std::nullopt;
  }
  Label label;
  if (!HasChecksum(bytes)) label.warnings.emplace_back("has a wrong checksum");
  const size_t count = CountOf(LoadAs<uint16_t>(order, bytes, x86::kSliceCount),
                               x86::kMaxSlices, label);
  for (size_t i = 0; i < count; ++i) {
    const size_t slice = x86::kSlices + i * x86::kSliceBytes;
    label.slices.push_back(
        {.first_sector = LoadAs<uint32_t>(order, bytes, slice + 4),
         .sectors = LoadAs<uint32_t>(order, bytes, slice + 8),
         .tag = LoadAs<uint16_t>(order, bytes, slice)});
  }
  return label;
}

void AddSlice(unsigned number, uint64_t base, const Slice& slice,
              FoundPartitions& found) {
  const uint64_t first = base + slice.first_sector;
  found.Add(
      {.number = number, .label = "", .scheme = "sun", .type = slice.type()},
      {.first = first, .last = first + slice.sectors - 1});
}

}  // namespace

std::optional<PartitionTable> ReadSunLabel(BlockDevice& disk) {
  std::optional<Label> label;
  if (const auto sector = ReadSector(disk, 0)) label = ParseSparcLabel(*sector);
  if (!label) {
    if (const auto sector = ReadSector(disk, 1)) label = ParseX86Label(*sector);
  }
  if (!label) return std::nullopt;
  FoundPartitions found(disk);
  for (const std::string& warning : label->warnings) {
    found.Warn("the label of Sun " + warning);
  }
  for (unsigned i = 0; i < label->slices.size(); ++i) {
    const Slice& slice = label->slices[i];
    if (slice.sectors != 0) AddSlice(i + 1, 0, slice, found);
  }
  return std::move(found).Take();
}

unsigned AddSunPartitions(BlockDevice& disk, const ParentPartition& parent,
                          unsigned next, FoundPartitions& found) {
  if (parent.type != kSolaris && parent.type != kSolaris2) return next;
  const auto sector = ReadSector(disk, parent.first_sector + 1);
  const auto label = sector ? ParseX86Label(*sector) : std::nullopt;
  if (!label) return next;
  for (const std::string& warning : label->warnings) {
    found.Warn(fmt::format("the label of Sun in partition {} {}", parent.number,
                           warning));
  }
  for (const Slice& slice : label->slices) {
    if (slice.sectors != 0) {
      AddSlice(next++, parent.first_sector, slice, found);
    }
  }
  return next;
}

}  // namespace pellucid
