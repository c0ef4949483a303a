#include "engine/qcow2/bitmap_directory.h"

#include <fmt/format.h>

#include <array>

#include "engine/big_endian.h"
#include "engine/errors.h"

namespace pellucid::qcow2 {
namespace {

constexpr uint64_t kMaxBitmaps = 65535;
constexpr uint64_t kMaxDirectoryBytes = 64 << 20;
constexpr uint64_t kExtensionBytes = 24;
constexpr uint64_t kEntryBytes = 24;  // In front of extra data and name.

}  // namespace

BitmapDirectory ReadBitmapDirectory(BlockDevice& file,
                                    const std::string& file_name,
                                    const Header& header) {
  BitmapDirectory directory;
  if ((header.autoclear_features & kBitmapsConsistent) == 0) return directory;
  const std::vector<std::byte>& extension = header.bitmaps_extension;
  if (extension.empty()) return directory;
  const auto corrupt = [&](const std::string& why) {
    throw CorruptImage(
        fmt::format("{}: bitmaps extension: {}", file_name, why));
  };
  if (extension.size() != kExtensionBytes) {
    corrupt(fmt::format("is {} bytes long, not {}", extension.size(),
                        kExtensionBytes));
  }
  const auto nb_bitmaps = LoadBigEndian<uint32_t>(extension, 0);
  directory.size = LoadBigEndian<uint64_t>(extension, 8);
  directory.offset = LoadBigEndian<uint64_t>(extension, 16);
  if (nb_bitmaps == 0 || nb_bitmaps > kMaxBitmaps) {
    corrupt(fmt::format("nb_bitmaps is {}, not within 1 to {}", nb_bitmaps,
                        kMaxBitmaps));
  }
  if (directory.size > kMaxDirectoryBytes) {
    corrupt(fmt::format("bitmap_directory_size is {}, above {}", directory.size,
                        kMaxDirectoryBytes));
  }
  if (directory.offset == 0 || directory.offset % header.cluster_size() != 0) {
    corrupt(
        fmt::format("bitmap_directory_offset is {:#x}, not a multiple of "
                    "the {}-byte cluster above 0",
                    directory.offset, header.cluster_size()));
  }
  if (directory.offset > file.size() ||
      directory.size > file.size() - directory.offset) {
    corrupt(
        fmt::format("bitmap_directory_offset is {:#x}: {} bytes there end "
                    "behind the {}-byte file",
                    directory.offset, directory.size, file.size()));
  }
  uint64_t at = 0;
  for (uint32_t i = 0; i < nb_bitmaps; ++i) {
    const uint64_t entry = directory.offset + at;
    if (kEntryBytes > directory.size - at) {
      corrupt(
          fmt::format("bitmap {} (byte {}) begins behind the end of the "
                      "directory",
                      i, entry));
    }
    std::array<std::byte, kEntryBytes> fixed;
    file.Read(entry, fixed);
    directory.entries.push_back(
        {.entry_offset = entry,
         .bitmap_table_offset = LoadBigEndian<uint64_t>(fixed, 0),
         .bitmap_table_size = LoadBigEndian<uint32_t>(fixed, 8)});
    const uint64_t length = (kEntryBytes + LoadBigEndian<uint16_t>(fixed, 18) +
                             LoadBigEndian<uint32_t>(fixed, 20) + 7) /
                            8 * 8;
    if (length > directory.size - at) {
      corrupt(
          fmt::format("bitmap {} (byte {}) ends behind the end of the "
                      "directory",
                      i, entry));
    }
    at += length;
  }
  return directory;
}

}  // namespace pellucid::qcow2
