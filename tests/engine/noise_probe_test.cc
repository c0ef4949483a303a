#include "engine/noise_probe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"

namespace pellucid {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kSize = 8 * kMiB;

// All of the ciphertext is written, and decrypts to `plaintext`.
bool IsNoise(const Bytes& plaintext) {
  MemoryDevice payload(Noise(plaintext.size(), 99));
  MemoryDevice decrypted(plaintext);
  return NoiseProbe(payload, 0, plaintext.size()).IsNoise(decrypted);
}

void Put(Bytes& bytes, size_t offset, std::string_view text) {
  std::ranges::copy(std::as_bytes(std::span(text)),
                    bytes.begin() + static_cast<ptrdiff_t>(offset));
}

TEST(NoiseProbe, RandomBlocksLookLikeNoiseAndNothingElseDoes) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    EXPECT_TRUE(LooksLikeNoise(Noise(4096, seed))) << seed;
  }
  EXPECT_FALSE(LooksLikeNoise(Bytes(4096)));
  EXPECT_FALSE(LooksLikeNoise(Bytes(4096, std::byte{0xff})));
  // A tenth of zeros among noise is enough.
  Bytes mostly_noise = Noise(4096, 1);
  std::fill_n(mostly_noise.begin(), 410, std::byte{0});
  EXPECT_FALSE(LooksLikeNoise(mostly_noise));
}

TEST(NoiseProbe, NoiseEverywhereIsNoiseWhateverTheSize) {
  for (const size_t size :
       {size_t{16384}, size_t{100000}, kMiB, kMiB + 4096, kSize, kSize + 511}) {
    EXPECT_TRUE(IsNoise(Noise(size, 7))) << size;
  }
}

// What volume managers and the like write first, on disks that were full of
// noise before.
TEST(NoiseProbe, OneSectorOfMetadataIsEnough) {
  Bytes lvm = Noise(kSize, 1);
  std::fill_n(lvm.begin(), 2048, std::byte{0});
  Put(lvm, 512, "LABELONE");
  EXPECT_FALSE(IsNoise(lvm));

  Bytes raid = Noise(kSize, 2);  // Version 1.2 of the superblock.
  std::fill_n(raid.begin() + 4096, 4096, std::byte{0});
  Put(raid, 4096, "\xfc\x4e\x2b\xa9");
  EXPECT_FALSE(IsNoise(raid));

  Bytes old_raid = Noise(kSize, 3);  // Version 0.90, near the end.
  std::fill_n(old_raid.end() - 65536, 4096, std::byte{0});
  EXPECT_FALSE(IsNoise(old_raid));

  Bytes zfs = Noise(kSize, 4);  // A label of 256 KiB, name-value pairs in it.
  std::fill_n(zfs.begin(), 128 << 10, std::byte{0});
  Put(zfs, 16384, "version");
  EXPECT_FALSE(IsNoise(zfs));

  Bytes btrfs = Noise(kSize, 5);
  std::fill_n(btrfs.begin() + 65536, 4096, std::byte{0});
  Put(btrfs, 65536 + 64, "_BHRfS_M");
  EXPECT_FALSE(IsNoise(btrfs));

  Bytes backup_table = Noise(kSize, 6);  // A GPT's second copy.
  std::fill_n(backup_table.end() - 33 * 512, 33 * 512, std::byte{0});
  EXPECT_FALSE(IsNoise(backup_table));
}

TEST(NoiseProbe, OnlyWrittenCiphertextCounts) {
  // Nothing is written: a fresh volume, whose zeros decrypt to noise.
  MemoryDevice empty((Bytes(kSize)));
  MemoryDevice noise(Noise(kSize, 1));
  EXPECT_FALSE(NoiseProbe(empty, 0, kSize).IsNoise(noise));

  // Only a table is written, in one sector: its neighbours are noise.
  Bytes one_sector(kSize);
  std::ranges::copy(Noise(512, 2), one_sector.begin());
  MemoryDevice table(one_sector);
  EXPECT_FALSE(NoiseProbe(table, 0, kSize).IsNoise(noise));

  // Three blocks are too few to tell, four are not.
  for (const size_t blocks : {3, 4}) {
    Bytes few(kSize);
    std::ranges::copy(Noise(blocks * 4096, 3), few.begin() + 65536);
    MemoryDevice payload(few);
    EXPECT_EQ(NoiseProbe(payload, 0, kSize).IsNoise(noise), blocks == 4);
  }
}

TEST(NoiseProbe, TheVolumeMayBeginBehindTheHeader) {
  Bytes with_header(2 * kMiB);
  const Bytes data = Noise(kSize, 1);
  with_header.insert(with_header.end(), data.begin(), data.end());
  MemoryDevice payload(with_header);
  MemoryDevice noise(Noise(kSize, 2));
  EXPECT_TRUE(NoiseProbe(payload, 2 * kMiB, kSize).IsNoise(noise));
}

}  // namespace
}  // namespace pellucid
