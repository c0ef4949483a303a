// A family of hostile disks: of each table of partitions, every byte is
// flipped, and every word of 2 and of 4 bytes becomes 0, 1, the greatest
// number, or one that is near the disk's end. What comes out lies on the disk,
// in order, in bounded time and memory.

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "tests/engine/labelled_disks.h"
#include "tests/engine/run_cost.h"

namespace pellucid {
namespace {

struct Family {
  std::string name;
  LabelledDisk disk;
  // Sectors with something to change.
  std::vector<uint64_t> sectors;
};

void PrintTo(const Family& family, std::ostream* out) { *out << family.name; }

class HostilePartitionsTest : public testing::TestWithParam<Family> {
 protected:
  void Check(MemoryDevice& device, uint64_t at) {
    const auto table = ReadPartitionTable(device);
    ++looks_;
    if (!table) return;
    ++tables_;
    ASSERT_LE(table->warnings.size(), 16U) << at;
    unsigned last = 0;
    for (const Partition& partition : table->partitions) {
      ASSERT_GT(partition.number, last) << at;
      last = partition.number;
      ASSERT_LT(partition.offset, device.size()) << at;
      ASSERT_GT(partition.size, 0U) << at;
      ASSERT_LE(partition.size, device.size() - partition.offset) << at;
    }
  }

  size_t looks_ = 0;
  size_t tables_ = 0;  // In which something was still found.
};

TEST_P(HostilePartitionsTest, NoChangeLeadsOutOfTheDisk) {
  const RunCost cost;
  MemoryDevice device(GetParam().disk.bytes);
  Bytes& bytes = device.bytes();
  const uint64_t end = bytes.size() / 512;
  for (const uint64_t sector : GetParam().sectors) {
    for (uint64_t at = sector * 512; at < (sector + 1) * 512; ++at) {
      const Bytes good(bytes.begin() + static_cast<ptrdiff_t>(at),
                       bytes.begin() + static_cast<ptrdiff_t>(
                                           std::min(at + 4, bytes.size())));
      const auto restore = [&] {
        std::ranges::copy(good, bytes.begin() + static_cast<ptrdiff_t>(at));
      };
      for (const unsigned change : {0x01U, 0x80U, 0xffU}) {
        bytes[at] ^= static_cast<std::byte>(change);
        Check(device, at);
        restore();
      }
      for (const unsigned width : {2U, 4U}) {
        if (at % width != 0) continue;
        for (const uint64_t value :
             {uint64_t{0}, uint64_t{1}, end - 1, end, ~uint64_t{0}}) {
          StoreNumber(bytes, at, width, value);
          Check(device, at);
          restore();
          for (unsigned i = 0; i < width; ++i) {
            bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
          }
          Check(device, at);
          restore();
        }
      }
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_EQ(bytes, GetParam().disk.bytes);
  // Most changes are no reason to say nothing.
  EXPECT_GT(tables_, looks_ / 2);
  EXPECT_LT(cost.time() / static_cast<int64_t>(looks_),
            std::chrono::milliseconds(1));
  EXPECT_LT(cost.bytes(), kMaxRunBytes);
}

INSTANTIATE_TEST_SUITE_P(
    Tables, HostilePartitionsTest,
    testing::Values(Family{"Apple", AppleDisk(512), {0, 1, 2, 3, 4}},
                    Family{"AppleOfACd", AppleDisk(2048), {0, 4, 8, 12, 16}},
                    Family{"Bsd", BsdDisk(), {1}},
                    Family{"BsdOnAlpha", BsdDisk(64), {0}},
                    Family{"FreeBsd", BsdInMbr(0xa5, true), {0, 101, 900}},
                    Family{"OpenBsd", BsdInMbr(0xa6, false), {0, 101, 900}},
                    Family{"Sun", SunDisk(), {0}},
                    Family{"SunX86", SunX86Disk(), {1}},
                    Family{"SunX86InMbr", SunX86InMbr(0xbf), {0, 101}}),
    [](const auto& param_info) { return param_info.param.name; });

}  // namespace
}  // namespace pellucid
