#ifndef PELLUCID_TESTS_ENGINE_LABELLED_DISKS_H_
#define PELLUCID_TESTS_ENGINE_LABELLED_DISKS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/partition_table.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"

namespace pellucid {

// Disks with partition tables of other systems than PCs, byte by byte as the
// formats are published, for what no program here writes.
struct LabelledDisk {
  explicit LabelledDisk(uint64_t sectors) : bytes(sectors * 512) {}

  // Numbers in either byte order.
  void Big(uint64_t at, unsigned width, uint64_t value) {
    StoreNumber(bytes, at, width, value);
  }
  void Little(uint64_t at, unsigned width, uint64_t value) {
    for (unsigned i = 0; i < width; ++i) {
      bytes.at(at + i) = static_cast<std::byte>(value >> (8 * i));
    }
  }
  void Text(uint64_t at, std::string_view text) {
    for (const char c : text) bytes.at(at++) = static_cast<std::byte>(c);
  }

  void MbrEntry(unsigned index, uint8_t type, uint32_t first,
                uint32_t sectors) {
    const uint64_t at = 446 + 16 * index;
    Little(510, 2, 0xaa55);
    Little(at + 4, 1, type);
    Little(at + 8, 4, first);
    Little(at + 12, 4, sectors);
  }

  // Makes the exclusive or of all words of a label 0.
  void Seal(uint64_t label, uint64_t length, uint64_t checksum) {
    std::byte sum[2] = {};
    bytes.at(label + checksum) = bytes.at(label + checksum + 1) = std::byte{0};
    for (uint64_t i = 0; i < length; ++i) sum[i % 2] ^= bytes.at(label + i);
    bytes[label + checksum] = sum[0];
    bytes[label + checksum + 1] = sum[1];
  }

  void AppleDescriptor(uint16_t block_size) {
    Text(0, "ER");
    Big(2, 2, block_size);
    Big(4, 4, bytes.size() / block_size);
  }
  void AppleEntry(uint64_t block_size, unsigned number, uint32_t entries,
                  uint32_t first, uint32_t blocks, std::string_view name,
                  std::string_view type) {
    const uint64_t at = block_size * number;
    Text(at, "PM");
    Big(at + 4, 4, entries);
    Big(at + 8, 4, first);
    Big(at + 12, 4, blocks);
    Text(at + 16, name);
    Text(at + 48, type);
  }

  // A BSD label at byte `label`, then its partitions.
  void BsdLabel(uint64_t label, uint16_t partitions) {
    Little(label, 4, 0x82564557);
    Little(label + 40, 4, 512);
    Little(label + 132, 4, 0x82564557);
    Little(label + 138, 2, partitions);
    SealBsd(label, partitions);
  }
  void BsdEntry(uint64_t label, unsigned index, uint32_t first,
                uint32_t sectors, uint8_t fstype) {
    const uint64_t at = label + 148 + 16 * index;
    Little(at, 4, sectors);
    Little(at + 4, 4, first);
    Little(at + 12, 1, fstype);
  }
  void SealBsd(uint64_t label, uint16_t partitions) {
    Seal(label, 148 + uint64_t{16} * partitions, 136);
  }

  // A label of Sun for x86 in the sector at byte `label`.
  void SunX86Label(uint64_t label, uint16_t slices) {
    Little(label + 12, 4, 0x600ddeee);
    Little(label + 16, 4, 1);
    Little(label + 28, 2, 512);
    Little(label + 30, 2, slices);
    Little(label + 508, 2, 0xdabe);
    Seal(label, 512, 510);
  }
  void SunX86Slice(uint64_t label, unsigned index, uint16_t tag, uint32_t first,
                   uint32_t sectors) {
    const uint64_t at = label + 72 + 12 * index;
    Little(at, 2, tag);
    Little(at + 4, 4, first);
    Little(at + 8, 4, sectors);
  }

  // SPARC's, with cylinders of 2 tracks of 16 sectors.
  void SunLabel(uint16_t slices) {
    Big(128, 4, 1);
    Big(140, 2, slices);
    Big(188, 4, 0x600ddeee);
    Big(436, 2, 2);
    Big(438, 2, 16);
    Big(508, 2, 0xdabe);
    Seal(0, 512, 510);
  }
  void SunSlice(unsigned index, uint16_t tag, uint32_t first_cylinder,
                uint32_t sectors) {
    Big(142 + 4 * index, 2, tag);
    Big(444 + 8 * index, 4, first_cylinder);
    Big(448 + 8 * index, 4, sectors);
  }

  std::optional<PartitionTable> Read() const {
    MemoryDevice device(bytes);
    return ReadPartitionTable(device);
  }

  Bytes bytes;
};

inline LabelledDisk AppleDisk(uint16_t block_size) {
  LabelledDisk disk(4096);
  const uint32_t blocks = 4096 * 512 / block_size;
  disk.AppleDescriptor(block_size);
  disk.AppleEntry(block_size, 1, 4, 1, 63, "Apple", "Apple_partition_map");
  disk.AppleEntry(block_size, 2, 4, 64, 100, "M\x9asik", "Apple_HFS");
  disk.AppleEntry(block_size, 3, 4, 164, 0, "", "Apple_Void");
  disk.AppleEntry(block_size, 4, 4, 164, blocks - 164, "Extra", "Apple_Free");
  return disk;
}

// Of a whole disk: in sector 1, or at byte 64 as on Alpha.
inline LabelledDisk BsdDisk(uint64_t label = 512) {
  LabelledDisk disk(1000);
  disk.BsdEntry(label, 0, 16, 484, 7);
  disk.BsdEntry(label, 1, 500, 300, 1);
  disk.BsdEntry(label, 2, 0, 1000, 0);
  disk.BsdEntry(label, 4, 800, 200, 8);
  disk.BsdLabel(label, 8);
  return disk;
}

inline constexpr uint64_t kInnerFirst = 100;
inline constexpr uint64_t kInnerLabel = (kInnerFirst + 1) * 512;

// A label in the second of two primary partitions, sectors 100 to 899, with a
// logical one behind them. If `is_relative`, its sectors count from there.
inline LabelledDisk BsdInMbr(uint8_t type, bool is_relative) {
  LabelledDisk disk(1000);
  disk.MbrEntry(0, 0x83, 1, 9);
  disk.MbrEntry(1, type, kInnerFirst, 800);
  disk.MbrEntry(2, 0x05, 900, 100);
  disk.Little(900 * 512 + 510, 2, 0xaa55);
  disk.Little(900 * 512 + 446 + 4, 1, 0x83);
  disk.Little(900 * 512 + 446 + 8, 4, 1);
  disk.Little(900 * 512 + 446 + 12, 4, 50);
  const uint32_t base = is_relative ? 0 : kInnerFirst;
  disk.BsdEntry(kInnerLabel, 0, base + 16, 400, 7);
  disk.BsdEntry(kInnerLabel, 1, base + 416, 384, 1);
  disk.BsdEntry(kInnerLabel, 2, base, 800, 0);
  disk.BsdLabel(kInnerLabel, 8);
  return disk;
}

inline LabelledDisk SunDisk() {
  LabelledDisk disk(3200);
  disk.SunSlice(0, 2, 0, 640);
  disk.SunSlice(1, 3, 20, 320);
  disk.SunSlice(2, 5, 0, 3200);
  disk.SunSlice(6, 4, 30, 2240);
  disk.SunLabel(8);
  return disk;
}

inline void AddSunX86Slices(LabelledDisk& disk, uint64_t label) {
  disk.SunX86Slice(label, 0, 2, 64, 300);
  disk.SunX86Slice(label, 1, 3, 364, 100);
  disk.SunX86Slice(label, 2, 5, 0, 800);
  disk.SunX86Slice(label, 8, 1, 0, 16);
  disk.SunX86Label(label, 16);
}

inline LabelledDisk SunX86Disk() {
  LabelledDisk disk(1000);
  AddSunX86Slices(disk, 512);
  return disk;
}

inline LabelledDisk SunX86InMbr(uint8_t type) {
  LabelledDisk disk(1000);
  disk.MbrEntry(0, 0x83, 1, 9);
  disk.MbrEntry(1, type, kInnerFirst, 800);
  AddSunX86Slices(disk, kInnerLabel);
  return disk;
}

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_LABELLED_DISKS_H_
