#include "engine/guid_partitions.h"

#include <fmt/format.h>
#include <libdeflate.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/found_partitions.h"
#include "engine/little_endian.h"
#include "engine/utf16.h"

namespace pellucid {
namespace {

constexpr std::array<uint64_t, 2> kSectorSizes = {512, 4096};

// Fields of the header, by their byte.
constexpr std::string_view kSignature = "EFI PART";
constexpr size_t kHeaderSize = 12;
constexpr size_t kHeaderCrc = 16;
constexpr size_t kMyLba = 24;
constexpr size_t kAlternateLba = 32;
constexpr size_t kEntriesLba = 72;
constexpr size_t kEntryCount = 80;
constexpr size_t kEntrySize = 84;
constexpr size_t kEntriesCrc = 88;
constexpr uint32_t kLeastHeaderSize = 92;

// Fields of an entry.
constexpr size_t kTypeGuidBytes = 16;
constexpr size_t kFirstLba = 32;
constexpr size_t kLastLba = 40;
constexpr size_t kName = 56;
constexpr size_t kNameUnits = 36;
constexpr uint32_t kLeastEntrySize = 128;
constexpr uint32_t kGreatestEntrySize = 4096;

// Programs write 16 KiB.
constexpr uint64_t kMaxEntriesBytes = 1 << 20;

uint32_t Crc32(std::span<const std::byte> bytes) {
  return libdeflate_crc32(0, bytes.data(), bytes.size());
}

std::string LabelOf(std::span<const std::byte> entry) {
  return Utf8FromUtf16(entry.subspan(kName, 2 * kNameUnits));
}

// Of the type. The first three numbers of a GUID are little endian.
std::string GuidOf(std::span<const std::byte> entry) {
  std::string text =
      fmt::format("{:08x}-{:04x}-{:04x}-", LoadLittleEndian<uint32_t>(entry, 0),
                  LoadLittleEndian<uint16_t>(entry, 4),
                  LoadLittleEndian<uint16_t>(entry, 6));
  for (size_t i = 8; i < kTypeGuidBytes; ++i) {
    if (i == 10) text += '-';
    text += fmt::format("{:02x}", std::to_integer<unsigned>(entry[i]));
  }
  return text;
}

// One copy of a GPT: a header and the entries that it speaks of.
struct Copy {
  bool has_signature = false;
  uint64_t alternate_lba = 0;  // If the header is right, whatever the entries.
  uint64_t sector_size = 0;
  uint32_t entry_size = 0;
  std::vector<std::byte> entries;  // Empty if `problem` is not.
  std::string problem;
};

class Reader {
 public:
  explicit Reader(BlockDevice& disk) : disk_(disk), found_(disk) {}

  std::optional<PartitionTable> Read(std::optional<uint64_t> protective_end) {
    Copy first = ReadFirstCopy();
    if (first.problem.empty()) {
      if (!protective_end) {
        found_.Warn("the protective MBR in front of the GPT is missing");
      }
      AddPartitions(first);
      return std::move(found_).Take();
    }
    if (!protective_end) return std::nullopt;
    const Copy backup = FindBackup(first, *protective_end);
    if (backup.problem.empty()) {
      found_.Warn(
          fmt::format("the first copy of the GPT cannot be used ({}); its "
                      "backup is",
                      first.problem));
      AddPartitions(backup);
    } else {
      found_.Warn(
          fmt::format("the MBR says that there is a GPT, but neither copy can "
                      "be used: {}; {}",
                      first.problem, backup.problem));
    }
    return std::move(found_).Take();
  }

 private:
  Copy ReadFirstCopy() {
    Copy copy;
    for (const uint64_t sector_size : kSectorSizes) {
      copy = ReadCopy(1, sector_size);
      if (copy.has_signature) break;
    }
    return copy;
  }

  Copy FindBackup(const Copy& first, uint64_t protective_end) {
    Copy backup;
    if (first.alternate_lba > 1) {
      backup = ReadCopy(first.alternate_lba, first.sector_size);
      if (backup.problem.empty()) return backup;
    }
    for (const uint64_t sector_size : kSectorSizes) {
      const uint64_t sectors = disk_.size() / sector_size;
      for (const uint64_t lba : {sectors - 1, protective_end}) {
        if (sectors == 0 || lba < 2) continue;
        backup = ReadCopy(lba, sector_size);
        if (backup.problem.empty()) return backup;
      }
    }
    if (backup.problem.empty()) {
      backup.problem = "there is no room for a backup";
    }
    return backup;
  }

  Copy ReadCopy(uint64_t lba, uint64_t sector_size) {
    Copy copy;
    copy.sector_size = sector_size;
    const auto fail = [&](const std::string& why) {
      copy.problem = fmt::format("the header in sector {} {}", lba, why);
      return copy;
    };
    if (lba >= disk_.size() / sector_size) {
      return fail("would be behind the end of the disk");
    }
    std::vector<std::byte> header(sector_size);
    disk_.Read(lba * sector_size, header);
    if (!std::ranges::equal(std::span(header).first(kSignature.size()),
                            std::as_bytes(std::span(kSignature)))) {
      return fail("has no signature");
    }
    copy.has_signature = true;
    const auto size = LoadLittleEndian<uint32_t>(header, kHeaderSize);
    if (size < kLeastHeaderSize || size > sector_size) {
      return fail(fmt::format("has header_size {}", size));
    }
    const auto crc = LoadLittleEndian<uint32_t>(header, kHeaderCrc);
    std::ranges::fill(std::span(header).subspan(kHeaderCrc, 4), std::byte{0});
    if (crc != Crc32(std::span(header).first(size))) {
      return fail("has a wrong checksum");
    }
    if (LoadLittleEndian<uint64_t>(header, kMyLba) != lba) {
      return fail("belongs elsewhere (my_lba)");
    }
    copy.alternate_lba = LoadLittleEndian<uint64_t>(header, kAlternateLba);
    const auto entries_lba = LoadLittleEndian<uint64_t>(header, kEntriesLba);
    const auto count = LoadLittleEndian<uint32_t>(header, kEntryCount);
    copy.entry_size = LoadLittleEndian<uint32_t>(header, kEntrySize);
    if (copy.entry_size < kLeastEntrySize || copy.entry_size % 8 != 0 ||
        copy.entry_size > kGreatestEntrySize) {
      return fail(fmt::format("has entry size {}", copy.entry_size));
    }
    const uint64_t bytes = uint64_t{count} * copy.entry_size;
    if (bytes > kMaxEntriesBytes) {
      return fail(fmt::format("has {} entries, more than {} KiB of them", count,
                              kMaxEntriesBytes >> 10));
    }
    if (entries_lba >= disk_.size() / sector_size ||
        bytes > disk_.size() - entries_lba * sector_size) {
      return fail("has entries behind the end of the disk");
    }
    std::vector<std::byte> entries(bytes);
    disk_.Read(entries_lba * sector_size, entries);
    if (LoadLittleEndian<uint32_t>(header, kEntriesCrc) != Crc32(entries)) {
      return fail("has entries with a wrong checksum");
    }
    copy.entries = std::move(entries);
    return copy;
  }

  void AddPartitions(const Copy& copy) {
    unsigned number = 0;
    for (size_t at = 0; at < copy.entries.size(); at += copy.entry_size) {
      ++number;
      const std::span<const std::byte> entry =
          std::span(copy.entries).subspan(at, copy.entry_size);
      if (std::ranges::all_of(entry.first(kTypeGuidBytes), [](std::byte byte) {
            return byte == std::byte{0};
          })) {
        continue;
      }
      found_.Add({.number = number,
                  .label = LabelOf(entry),
                  .scheme = "gpt",
                  .type = GuidOf(entry)},
                 {.first = LoadLittleEndian<uint64_t>(entry, kFirstLba),
                  .last = LoadLittleEndian<uint64_t>(entry, kLastLba),
                  .sector_size = copy.sector_size});
    }
  }

  BlockDevice& disk_;
  FoundPartitions found_;
};

}  // namespace

std::optional<PartitionTable> ReadGuidPartitions(
    BlockDevice& disk, std::optional<uint64_t> protective_end) {
  return Reader(disk).Read(protective_end);
}

}  // namespace pellucid
