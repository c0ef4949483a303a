#include "engine/volume_signature.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include "engine/little_endian.h"
#include "engine/utf16.h"

namespace pellucid {
namespace {

using Bytes = std::span<const std::byte>;

// Up to the end of the superblock of btrfs, the last signature.
constexpr size_t kHeadBytes = size_t{68} << 10;
// Of a folder, which is as much as is looked at for a label.
constexpr size_t kMaxFolderBytes = size_t{64} << 10;

// A part of the volume; what is behind its end is zeros.
std::vector<std::byte> ReadPart(BlockDevice& volume, uint64_t offset,
                                size_t length) {
  std::vector<std::byte> bytes(length);
  if (offset < volume.size()) ReadZeroPadded(volume, offset, bytes);
  return bytes;
}

bool Has(Bytes bytes, size_t at, std::string_view magic) {
  return at + magic.size() <= bytes.size() &&
         std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

// A text of at most `length` bytes that ends at the first zero.
std::string TextAt(Bytes bytes, size_t at, size_t length) {
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + at;
  return {text, strnlen(text, length)};
}

// The same, filled up with spaces.
std::string PaddedTextAt(Bytes bytes, size_t at, size_t length) {
  std::string text = TextAt(bytes, at, length);
  text.resize(text.find_last_not_of(' ') + 1);
  return text;
}

// RFC 9562; empty if it is all zeros.
std::string UuidAt(Bytes bytes, size_t at) {
  const Bytes uuid = bytes.subspan(at, 16);
  if (std::ranges::all_of(uuid, [](std::byte b) { return b == std::byte{0}; }))
    return "";
  std::string text;
  for (size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", std::to_integer<unsigned>(uuid[i]));
  }
  return text;
}

// As DOS prints it.
std::string SerialAt(Bytes bytes, size_t at) {
  const auto serial = LoadLittleEndian<uint32_t>(bytes, at);
  if (serial == 0) return "";
  return fmt::format("{:04X}-{:04X}", serial >> 16, serial & 0xffff);
}

// LUKS1 and LUKS2 on-disk formats, header fields.
std::optional<VolumeSignature> FindLuks(Bytes head) {
  if (!Has(head, 0, "LUKS\xba\xbe")) return std::nullopt;
  const bool is_luks2 = head[7] == std::byte{2};
  return VolumeSignature{.type = "crypto_LUKS",
                         .label = is_luks2 ? TextAt(head, 24, 48) : "",
                         .uuid = TextAt(head, 168, 40)};
}

// LVM2, label_header and pv_header: in one of the sectors up to `last`.
std::optional<VolumeSignature> FindLvm(Bytes head, size_t first, size_t last) {
  constexpr size_t kSector = 512;
  for (size_t at = first * kSector; at <= last * kSector; at += kSector) {
    if (!Has(head, at, "LABELONE") || !Has(head, at + 24, "LVM2 001")) continue;
    const auto header = LoadLittleEndian<uint32_t>(head, at + 20);
    if (header > kSector - 32) continue;
    std::string uuid = TextAt(head, at + header, 32);
    for (size_t dash = 6; dash < 32 && dash < uuid.size(); dash += 5) {
      uuid.insert(dash, 1, '-');
    }
    return VolumeSignature{.type = "LVM2_member", .label = "", .uuid = uuid};
  }
  return std::nullopt;
}

// Linux's mm/swap: the last ten bytes of the first page.
std::optional<VolumeSignature> FindSwap(Bytes head) {
  for (size_t page = 4096; page <= 65536; page *= 2) {
    if (!Has(head, page - 10, "SWAPSPACE2")) continue;
    return VolumeSignature{.type = "swap",
                           .label = TextAt(head, 1052, 16),
                           .uuid = UuidAt(head, 1036)};
  }
  return std::nullopt;
}

// XFS Algorithms & Data Structures, "Superblocks".
std::optional<VolumeSignature> FindXfs(Bytes head) {
  if (!Has(head, 0, "XFSB")) return std::nullopt;
  return VolumeSignature{
      .type = "xfs", .label = TextAt(head, 108, 12), .uuid = UuidAt(head, 32)};
}

// btrfs on-disk format, "Superblock".
std::optional<VolumeSignature> FindBtrfs(Bytes superblock) {
  if (!Has(superblock, 64, "_BHRfS_M")) return std::nullopt;
  return VolumeSignature{.type = "btrfs",
                         .label = TextAt(superblock, 299, 256),
                         .uuid = UuidAt(superblock, 32)};
}

// Linux's ext4 documentation, "Super Block".
std::optional<VolumeSignature> FindExt(Bytes block) {
  if (!Has(block, 56, "\x53\xef")) return std::nullopt;
  const auto compatible = LoadLittleEndian<uint32_t>(block, 92);
  const auto incompatible = LoadLittleEndian<uint32_t>(block, 96);
  const auto read_only = LoadLittleEndian<uint32_t>(block, 100);
  constexpr uint32_t kHasJournal = 0x4;
  constexpr uint32_t kJournalDevice = 0x8;
  // File types, recovery, meta block groups; sparse superblocks, large files,
  // hashed folders: what ext3 has.
  constexpr uint32_t kOldIncompatible = 0x2 | 0x4 | 0x10;
  constexpr uint32_t kOldReadOnly = 0x1 | 0x2 | 0x4;
  const char* type = "ext2";
  if ((incompatible & kJournalDevice) != 0) {
    type = "jbd";
  } else if ((incompatible & ~kOldIncompatible) != 0 ||
             (read_only & ~kOldReadOnly) != 0) {
    type = "ext4";
  } else if ((compatible & kHasJournal) != 0) {
    type = "ext3";
  }
  return VolumeSignature{.type = type,
                         .label = TextAt(block, 120, 16),
                         .uuid = UuidAt(block, 104)};
}

// ECMA-119, 8.4: the primary volume descriptor. The time of the last change, or
// else of creation, stands in for the UUID that there is none of.
std::optional<VolumeSignature> FindIso9660(Bytes block) {
  if (!Has(block, 0, "\1CD001")) return std::nullopt;
  std::string date;
  for (const size_t at : {size_t{830}, size_t{813}}) {
    const std::string digits = TextAt(block, at, 16);
    if (digits.size() != 16 || digits == std::string(16, '0')) continue;
    date = digits.substr(0, 4);
    for (size_t i = 4; i < 16; i += 2) {
      date += '-';
      date += digits.substr(i, 2);
    }
    break;
  }
  return VolumeSignature{
      .type = "iso9660", .label = PaddedTextAt(block, 40, 32), .uuid = date};
}

// The label of NTFS is an attribute of the file $Volume, whose record is the
// fourth of the master file table.
std::string NtfsLabel(BlockDevice& volume, Bytes head) {
  const uint64_t sector_size = LoadLittleEndian<uint16_t>(head, 11);
  const auto per_cluster = std::to_integer<unsigned>(head[13]);
  const auto per_record = static_cast<int8_t>(head[64]);
  const uint64_t cluster_size =
      per_cluster <= 128 ? sector_size * per_cluster
                         : sector_size << std::min(256 - per_cluster, 31u);
  const uint64_t record_size =
      per_record > 0 ? cluster_size * static_cast<uint64_t>(per_record)
                     : uint64_t{1} << std::min(-per_record, 31);
  const auto table_cluster = LoadLittleEndian<uint64_t>(head, 48);
  constexpr uint64_t kMaxRecord = 65536;
  if (record_size < 512 || record_size > kMaxRecord || cluster_size == 0 ||
      table_cluster > volume.size() / cluster_size) {
    return "";
  }
  std::vector<std::byte> record =
      ReadPart(volume, table_cluster * cluster_size + 3 * record_size,
               static_cast<size_t>(record_size));
  if (!Has(record, 0, "FILE")) return "";
  // The last two bytes of each sector stand elsewhere.
  const size_t originals = LoadLittleEndian<uint16_t>(record, 4);
  const size_t count = LoadLittleEndian<uint16_t>(record, 6);
  for (size_t i = 1; i < count; ++i) {
    if (i * 512 > record.size() || originals + 2 * i + 2 > record.size()) break;
    std::copy_n(record.begin() + static_cast<ptrdiff_t>(originals + 2 * i), 2,
                record.begin() + static_cast<ptrdiff_t>(i * 512 - 2));
  }
  constexpr uint32_t kVolumeName = 0x60;
  constexpr size_t kAttributeHeader = 24;
  size_t at = LoadLittleEndian<uint16_t>(record, 20);
  while (at + kAttributeHeader <= record.size()) {
    const auto type = LoadLittleEndian<uint32_t>(record, at);
    const auto length = LoadLittleEndian<uint32_t>(record, at + 4);
    if (length < kAttributeHeader || length > record.size() - at) break;
    const size_t value_length = LoadLittleEndian<uint32_t>(record, at + 16);
    const size_t value = LoadLittleEndian<uint16_t>(record, at + 20);
    if (type == kVolumeName && value <= length &&
        value_length <= length - value) {
      return Utf8FromUtf16(Bytes(record).subspan(at + value, value_length));
    }
    at += length;
  }
  return "";
}

std::optional<VolumeSignature> FindNtfs(BlockDevice* volume, Bytes head) {
  if (!Has(head, 3, "NTFS    ")) return std::nullopt;
  return VolumeSignature{
      .type = "ntfs",
      .label = volume == nullptr ? "" : NtfsLabel(*volume, head),
      .uuid = fmt::format("{:016X}", LoadLittleEndian<uint64_t>(head, 72))};
}

// exFAT file system specification, 3.1 and 7.3.
std::string ExfatLabel(BlockDevice& volume, Bytes head) {
  const auto sector_shift = std::to_integer<unsigned>(head[108]);
  const auto cluster_shift =
      sector_shift + std::to_integer<unsigned>(head[109]);
  const uint64_t root = LoadLittleEndian<uint32_t>(head, 96);
  if (sector_shift > 12 || cluster_shift > 25 || root < 2) return "";
  const uint64_t offset =
      (uint64_t{LoadLittleEndian<uint32_t>(head, 88)} << sector_shift) +
      ((root - 2) << cluster_shift);
  const std::vector<std::byte> folder = ReadPart(
      volume, offset, std::min(size_t{1} << cluster_shift, kMaxFolderBytes));
  constexpr size_t kEntry = 32;
  for (size_t at = 0; at + kEntry <= folder.size(); at += kEntry) {
    if (folder[at] == std::byte{0}) break;
    if (folder[at] != std::byte{0x83}) continue;
    const size_t units =
        std::min(std::to_integer<size_t>(folder[at + 1]), size_t{11});
    return Utf8FromUtf16(Bytes(folder).subspan(at + 2, 2 * units));
  }
  return "";
}

std::optional<VolumeSignature> FindExfat(BlockDevice* volume, Bytes head) {
  if (!Has(head, 3, "EXFAT   ")) return std::nullopt;
  return VolumeSignature{
      .type = "exfat",
      .label = volume == nullptr ? "" : ExfatLabel(*volume, head),
      .uuid = SerialAt(head, 100)};
}

// Microsoft's FAT specification, "Boot Sector and BPB" and "Volume ID": the
// label is an entry of the root folder.
std::string FatLabel(BlockDevice& volume, Bytes head, bool is_fat32) {
  const uint64_t sector_size = LoadLittleEndian<uint16_t>(head, 11);
  const uint64_t cluster_size =
      sector_size * std::to_integer<uint64_t>(head[13]);
  const uint64_t reserved = LoadLittleEndian<uint16_t>(head, 14);
  const uint64_t tables = std::to_integer<uint64_t>(head[16]);
  const uint64_t table_sectors = is_fat32
                                     ? LoadLittleEndian<uint32_t>(head, 36)
                                     : LoadLittleEndian<uint16_t>(head, 22);
  uint64_t offset = (reserved + tables * table_sectors) * sector_size;
  uint64_t length = uint64_t{32} * LoadLittleEndian<uint16_t>(head, 17);
  if (is_fat32) {
    const uint64_t root = LoadLittleEndian<uint32_t>(head, 44);
    if (root < 2) return "";
    offset += (root - 2) * cluster_size;
    length = cluster_size;
  }
  const std::vector<std::byte> folder = ReadPart(
      volume, offset,
      static_cast<size_t>(std::min<uint64_t>(length, kMaxFolderBytes)));
  constexpr size_t kEntry = 32;
  for (size_t at = 0; at + kEntry <= folder.size(); at += kEntry) {
    if (folder[at] == std::byte{0}) break;
    constexpr std::byte kDeleted{0xe5};
    constexpr std::byte kAttributes{0x3f};
    constexpr std::byte kVolumeId{0x08};
    if (folder[at] != kDeleted &&
        (folder[at + 11] & kAttributes) == kVolumeId) {
      return PaddedTextAt(folder, at, 11);
    }
  }
  return "";
}

std::optional<VolumeSignature> FindFat(BlockDevice* volume, Bytes head) {
  const bool is_fat32 = Has(head, 82, "FAT32   ");
  const bool is_older = Has(head, 54, "FAT12   ") || Has(head, 54, "FAT16   ");
  if (!Has(head, 510, "\x55\xaa") || (!is_fat32 && !is_older)) {
    return std::nullopt;
  }
  return VolumeSignature{
      .type = "vfat",
      .label = volume == nullptr ? "" : FatLabel(*volume, head, is_fat32),
      .uuid = SerialAt(head, is_fat32 ? 67 : 39)};
}

constexpr size_t kExtSuperblock = 1024;
constexpr size_t kIsoDescriptor = 32768;
constexpr size_t kBtrfsSuperblock = 65536;

std::vector<VolumeSignature> Those(
    std::initializer_list<std::optional<VolumeSignature>> found) {
  std::vector<VolumeSignature> there;
  for (const auto& signature : found) {
    if (signature) there.push_back(*signature);
  }
  return there;
}

// In the middle of a disk, where 16 bits of magic are not enough: the primary
// superblock of a volume that begins at the block, or a copy of one. Each says
// of which group it is.
std::optional<VolumeSignature> FindExtCopy(Bytes block) {
  for (const size_t at : {size_t{0}, kExtSuperblock}) {
    const Bytes superblock = block.subspan(at, 1024);
    const bool is_copy = LoadLittleEndian<uint16_t>(superblock, 90) != 0;
    if (is_copy != (at == 0) ||
        LoadLittleEndian<uint32_t>(superblock, 0) == 0 ||
        LoadLittleEndian<uint32_t>(superblock, 4) == 0 ||
        LoadLittleEndian<uint32_t>(superblock, 24) > 6 ||
        LoadLittleEndian<uint32_t>(superblock, 40) == 0 ||
        LoadLittleEndian<uint32_t>(superblock, 76) > 1) {
      continue;
    }
    if (auto found = FindExt(superblock)) return found;
  }
  return std::nullopt;
}

}  // namespace

std::vector<VolumeSignature> FindVolumeSignatures(BlockDevice& volume) {
  const std::vector<std::byte> bytes = ReadPart(volume, 0, kHeadBytes);
  const Bytes head = bytes;
  // Making a file system clears what others have at the very beginning, where
  // boot sectors are, more often than it clears what lies behind.
  return Those({FindLuks(head), FindXfs(head), FindNtfs(&volume, head),
                FindExfat(&volume, head), FindFat(&volume, head),
                FindLvm(head, 0, 3), FindSwap(head),
                FindExt(head.subspan(kExtSuperblock, 1024)),
                FindIso9660(head.subspan(kIsoDescriptor, 2048)),
                FindBtrfs(head.subspan(kBtrfsSuperblock))});
}

std::vector<VolumeSignature> FindSignaturesInBlock(
    std::span<const std::byte, kSignatureBlock> block) {
  return Those({FindLuks(block), FindXfs(block), FindNtfs(nullptr, block),
                FindExfat(nullptr, block), FindFat(nullptr, block),
                FindLvm(block, 1, 1), FindSwap(block), FindExtCopy(block),
                FindIso9660(Bytes(block).first(2048)), FindBtrfs(block)});
}

}  // namespace pellucid
