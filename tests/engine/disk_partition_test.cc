#include "engine/disk_partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/writable_memory_device.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

constexpr size_t kSector = 512;

// A disk of 64 sectors that says its own number in every byte, with an MBR of
// partition 1 (sectors 8 to 23) and, if wanted, 3 (sectors 32 to 47).
Bytes Disk(bool has_third) {
  Bytes disk(64 * kSector);
  for (size_t i = 0; i < disk.size(); ++i) {
    disk[i] = static_cast<std::byte>(i / kSector);
  }
  std::fill_n(disk.begin(), kSector, std::byte{0});
  const auto add = [&](size_t slot, unsigned first, unsigned count) {
    std::byte* const entry = disk.data() + 446 + 16 * slot;
    entry[4] = std::byte{0x83};
    entry[8] = static_cast<std::byte>(first);
    entry[12] = static_cast<std::byte>(count);
  };
  add(0, 8, 16);
  if (has_third) add(2, 32, 16);
  disk[510] = std::byte{0x55};
  disk[511] = std::byte{0xaa};
  return disk;
}

std::string MessageOfMissing(BlockDevice& disk, unsigned number) {
  try {
    FindPartition(disk, number, "disk.raw");
  } catch (const UsageError& error) {
    return error.what();
  }
  return "found";
}

TEST(DiskPartitionTest, IsFoundByItsNumber) {
  WritableMemoryDevice disk(Disk(/*has_third=*/true));
  const Partition third = FindPartition(disk, 3, "disk.raw");
  EXPECT_EQ(third.offset, 32 * kSector);
  EXPECT_EQ(third.size, 16 * kSector);
}

TEST(DiskPartitionTest, WhatIsNotThereIsAnsweredWithWhatIs) {
  WritableMemoryDevice two(Disk(/*has_third=*/true));
  EXPECT_EQ(MessageOfMissing(two, 2),
            "disk.raw: has no partition 2; there are 1, 3");
  WritableMemoryDevice one(Disk(/*has_third=*/false));
  EXPECT_EQ(MessageOfMissing(one, 3),
            "disk.raw: has no partition 3; there is 1");
  WritableMemoryDevice none(Bytes(64 * kSector));
  EXPECT_THAT(MessageOfMissing(none, 1), HasSubstr("has no partition table"));
}

TEST(DiskPartitionTest, ReadsAndWritesItsOwnBytesAlone) {
  auto memory = std::make_unique<WritableMemoryDevice>(Disk(true));
  WritableMemoryDevice& disk = *memory;
  const Partition third = FindPartition(disk, 3, "disk.raw");
  DiskPartition partition(std::unique_ptr<WritableDevice>(std::move(memory)),
                          third);
  ASSERT_EQ(partition.size(), 16 * kSector);
  Bytes first(1);
  Bytes last(1);
  partition.Read(0, first);
  partition.Read(partition.size() - 1, last);
  EXPECT_EQ(first[0], std::byte{32});
  EXPECT_EQ(last[0], std::byte{47});

  Bytes expected = Disk(true);
  const Bytes written(kSector, std::byte{0xee});
  partition.Write(partition.size() - kSector, written);
  std::ranges::copy(written, expected.begin() + 47 * kSector);
  partition.WriteZeroes(0, kSector, ZeroMode::kKeepSpace);
  std::fill_n(expected.begin() + 32 * kSector, kSector, std::byte{0});
  partition.Flush();
  Bytes all(disk.size());
  disk.Read(0, all);
  EXPECT_EQ(all, expected);
}

TEST(DiskPartitionTest, ExtentsEndWithIt) {
  auto disk = std::make_unique<WritableMemoryDevice>(Disk(true));
  const Partition first = FindPartition(*disk, 1, "disk.raw");
  DiskPartition partition(std::unique_ptr<BlockDevice>(std::move(disk)), first);
  const Extent extent = partition.ExtentAt(kSector, UINT64_MAX);
  EXPECT_LE(extent.length, 15 * kSector);
}

}  // namespace
}  // namespace pellucid
