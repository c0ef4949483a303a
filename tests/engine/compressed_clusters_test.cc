#include "engine/qcow2/compressed_clusters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libdeflate.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr size_t kCluster = 65536;

// Content that packs well without being all the same.
Bytes Packable(size_t size, uint64_t seed) {
  const Bytes word = Noise(64, seed);
  Bytes content(size);
  for (size_t i = 0; i < size; ++i) content[i] = word[i % 61 + i / 4096 % 3];
  return content;
}

Bytes Deflate(std::span<const std::byte> content) {
  libdeflate_compressor* compressor = libdeflate_alloc_compressor(6);
  Bytes packed(libdeflate_deflate_compress_bound(compressor, content.size()));
  packed.resize(libdeflate_deflate_compress(compressor, content.data(),
                                            content.size(), packed.data(),
                                            packed.size()));
  libdeflate_free_compressor(compressor);
  return packed;
}

Bytes Zstd(std::span<const std::byte> content) {
  Bytes packed(ZSTD_compressBound(content.size()));
  const size_t size = ZSTD_compress(packed.data(), packed.size(),
                                    content.data(), content.size(), 3);
  if (ZSTD_isError(size) != 0) throw std::runtime_error("zstd failed");
  packed.resize(size);
  return packed;
}

// As one that packs as it goes does it: without the size of the content, and
// with a window of its own choice.
Bytes ZstdStream(std::span<const std::byte> content, int window_log) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  Bytes packed(ZSTD_compressBound(content.size()) + 64);
  ZSTD_outBuffer out = {packed.data(), packed.size(), 0};
  ZSTD_inBuffer in = {content.data(), content.size(), 0};
  // Flushed first, so that the library cannot know that this was all.
  ZSTD_compressStream2(context, &out, &in, ZSTD_e_flush);
  const size_t rest = ZSTD_compressStream2(context, &out, &in, ZSTD_e_end);
  ZSTD_freeCCtx(context);
  if (rest != 0) throw std::runtime_error("zstd failed");
  packed.resize(out.pos);
  return packed;
}

Bytes Joined(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Mapping MappingOf(uint64_t host, uint64_t size) {
  return {.kind = ClusterKind::kCompressed,
          .length = kCluster,
          .host = {host},
          .compressed_size = size};
}

// What a file that has only `packed` unpacks to.
Bytes Unpack(CompressionType type, Bytes packed) {
  const uint64_t size = packed.size();
  MemoryDevice file(std::move(packed));
  CompressedClusters clusters(file, "disk.qcow2", type, kCluster);
  Bytes out(kCluster);
  clusters.Read(MappingOf(0, size), 0, out);
  return out;
}

std::string Refusal(CompressionType type, Bytes packed) {
  return ThrownText<CorruptImage>([&] { Unpack(type, std::move(packed)); });
}

class CompressedClustersTest : public testing::TestWithParam<CompressionType> {
 protected:
  static Bytes Pack(std::span<const std::byte> content) {
    return GetParam() == CompressionType::kZlib ? Deflate(content)
                                                : Zstd(content);
  }
};

INSTANTIATE_TEST_SUITE_P(Types, CompressedClustersTest,
                         testing::Values(CompressionType::kZlib,
                                         CompressionType::kZstd));

TEST_P(CompressedClustersTest, WholeClusterIsUnpacked) {
  for (const uint64_t seed : {1U, 2U}) {
    const Bytes content = Packable(kCluster, seed);
    EXPECT_EQ(Unpack(GetParam(), Pack(content)), content);
  }
  EXPECT_EQ(Unpack(GetParam(), Pack(Bytes(kCluster))), Bytes(kCluster));
}

TEST_P(CompressedClustersTest, NoiseThatPackingMakesLongerIsUnpacked) {
  const Bytes content = Noise(kCluster, 3);
  const Bytes packed = Pack(content);
  ASSERT_GT(packed.size(), kCluster);
  EXPECT_EQ(Unpack(GetParam(), packed), content);
}

TEST_P(CompressedClustersTest, PaddingBehindTheDataIsIgnored) {
  const Bytes content = Packable(kCluster, 4);
  for (const size_t padding : {1U, 3U, 4U, 511U}) {
    EXPECT_EQ(Unpack(GetParam(), Joined(Pack(content), Noise(padding, 5))),
              content);
    EXPECT_EQ(Unpack(GetParam(), Joined(Pack(content), Bytes(padding))),
              content);
  }
}

TEST_P(CompressedClustersTest, LastSectorMayEndBehindTheFile) {
  const Bytes content = Packable(kCluster, 6);
  const Bytes packed = Pack(content);
  MemoryDevice file(Joined(Bytes(100), packed));
  CompressedClusters clusters(file, "disk.qcow2", GetParam(), kCluster);
  Bytes out(kCluster);
  clusters.Read(MappingOf(100, packed.size() + 400), 0, out);
  EXPECT_EQ(out, content);
}

TEST_P(CompressedClustersTest, DataCutOffAnywhereIsRefused) {
  const Bytes packed = Pack(Packable(kCluster, 7));
  for (size_t length = 1; length < packed.size();
       length += 1 + packed.size() / 50) {
    EXPECT_THAT(
        Refusal(GetParam(), {packed.begin(),
                             packed.begin() + static_cast<ptrdiff_t>(length)}),
        HasSubstr("disk.qcow2: compressed cluster at offset 0"))
        << length;
  }
}

TEST_P(CompressedClustersTest, LessThanAClusterIsRefused) {
  EXPECT_THAT(Refusal(GetParam(), Pack(Packable(kCluster - 1, 8))),
              HasSubstr("unpacks to less than a cluster"));
}

TEST_P(CompressedClustersTest, MoreThanAClusterIsRefused) {
  EXPECT_THAT(Refusal(GetParam(), Pack(Packable(kCluster + 1, 9))),
              HasSubstr("unpacks to more than a cluster"));
  // A bomb: 64 MiB of zeros in a few kilobytes.
  EXPECT_THAT(Refusal(GetParam(), Pack(Bytes(64 << 20))),
              HasSubstr("unpacks to more than a cluster"));
}

TEST_P(CompressedClustersTest, GarbageIsRefusedWithItsPlaceAndType) {
  EXPECT_THAT(Refusal(GetParam(), Bytes(1000, std::byte{0xff})),
              AllOf(HasSubstr("compressed cluster at offset 0, 1000 bytes of"),
                    HasSubstr(GetParam() == CompressionType::kZlib
                                  ? "zlib: is not a raw deflate stream"
                                  : "zstd: is not a zstd frame")));
}

TEST_P(CompressedClustersTest, DamagedDataNeverWritesOutsideTheCluster) {
  const Bytes packed = Pack(Packable(kCluster, 10));
  std::mt19937_64 random(11);
  for (int i = 0; i < 300; ++i) {
    Bytes damaged = packed;
    for (int flips = 0; flips < 3; ++flips) {
      damaged[random() % damaged.size()] ^= std::byte{0x10};
    }
    const uint64_t size = damaged.size();
    MemoryDevice file(std::move(damaged));
    CompressedClusters clusters(file, "disk.qcow2", GetParam(), kCluster);
    constexpr size_t kGuardBytes = 4096;
    const Bytes guard(kGuardBytes, std::byte{0xa5});
    Bytes out(kGuardBytes + kCluster + kGuardBytes, std::byte{0xa5});
    try {
      // Right or wrong, but in bounds.
      clusters.Read(MappingOf(0, size), 0,
                    std::span(out).subspan(kGuardBytes, kCluster));
    } catch (const CorruptImage&) {
    }
    ASSERT_TRUE(std::equal(guard.begin(), guard.end(), out.begin())) << i;
    ASSERT_TRUE(std::equal(guard.rbegin(), guard.rend(), out.rbegin())) << i;
  }
}

TEST_P(CompressedClustersTest, FailureLeavesTheThreadAbleToUnpackTheNext) {
  const Bytes content = Packable(kCluster, 12);
  Bytes half = Pack(content);
  half.resize(half.size() / 2);
  Refusal(GetParam(), std::move(half));
  EXPECT_EQ(Unpack(GetParam(), Pack(content)), content);
}

TEST_P(CompressedClustersTest, SmallReadsOfOneClusterUnpackItOnce) {
  const Bytes content = Packable(kCluster, 13);
  const Bytes packed = Pack(content);
  MemoryDevice file(packed);
  CompressedClusters clusters(file, "disk.qcow2", GetParam(), kCluster);
  for (size_t at = 0; at < kCluster; at += 1000) {
    Bytes out(std::min<size_t>(1000, kCluster - at));
    clusters.Read(MappingOf(0, packed.size()), at, out);
    ASSERT_TRUE(std::equal(out.begin(), out.end(),
                           content.begin() + static_cast<ptrdiff_t>(at)));
  }
  EXPECT_EQ(file.reads(), 1U);
}

TEST_P(CompressedClustersTest, FourClustersAreKeptAndTheOldestGoes) {
  Bytes disk;
  std::vector<Mapping> places;
  std::vector<Bytes> contents;
  for (uint64_t seed = 20; seed < 25; ++seed) {
    contents.push_back(Packable(kCluster, seed));
    const Bytes packed = Pack(contents.back());
    places.push_back(MappingOf(disk.size(), packed.size()));
    disk = Joined(std::move(disk), packed);
  }
  MemoryDevice file(disk);
  CompressedClusters clusters(file, "disk.qcow2", GetParam(), kCluster);
  std::byte b;
  const auto reads_for = [&](size_t n) {
    const uint64_t before = file.reads();
    clusters.Read(places[n], n, {&b, 1});
    EXPECT_EQ(b, contents[n][n]);
    return file.reads() - before;
  };
  for (size_t n = 0; n < 4; ++n) EXPECT_EQ(reads_for(n), 1U);
  for (size_t n = 0; n < 4; ++n) EXPECT_EQ(reads_for(n), 0U);
  EXPECT_EQ(reads_for(4), 1U);  // In place of the first.
  EXPECT_EQ(reads_for(3), 0U);
  EXPECT_EQ(reads_for(0), 1U);
}

TEST_P(CompressedClustersTest, FailedClusterIsNotKept) {
  const Bytes content = Packable(kCluster, 14);
  const Bytes packed = Pack(content);
  MemoryDevice file(packed);
  CompressedClusters clusters(file, "disk.qcow2", GetParam(), kCluster);
  std::byte b;
  file.FailReads(0, 1);
  EXPECT_THROW(clusters.Read(MappingOf(0, packed.size()), 5, {&b, 1}), IoError);
  file.FailReads(0, 0);
  clusters.Read(MappingOf(0, packed.size()), 5, {&b, 1});
  EXPECT_EQ(b, content[5]);
}

TEST_P(CompressedClustersTest, ManyThreadsReadRightBytes) {
  constexpr size_t kCount = 9;  // More than are kept.
  Bytes disk;
  std::vector<Mapping> places;
  std::vector<Bytes> contents;
  for (size_t i = 0; i < kCount; ++i) {
    contents.push_back(Packable(kCluster, 30 + i));
    const Bytes packed = Pack(contents.back());
    places.push_back(MappingOf(disk.size(), packed.size()));
    disk = Joined(std::move(disk), packed);
  }
  MemoryDevice file(disk);
  CompressedClusters clusters(file, "disk.qcow2", GetParam(), kCluster);
  std::atomic<int> wrong{0};
  std::vector<std::jthread> threads;
  for (unsigned seed = 0; seed < 6; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      for (int i = 0; i < 200; ++i) {
        const size_t n = random() % kCount;
        const size_t at = i % 5 == 0 ? 0 : random() % kCluster;
        Bytes out(i % 5 == 0
                      ? kCluster
                      : 1 + random() % std::min<size_t>(kCluster - at, 3000));
        clusters.Read(places[n], at, out);
        if (!std::equal(out.begin(), out.end(),
                        contents[n].begin() + static_cast<ptrdiff_t>(at))) {
          ++wrong;
        }
      }
    });
  }
  threads.clear();  // Joins them.
  EXPECT_EQ(wrong, 0);
}

// ---- What only zstd has

TEST(ZstdClustersTest, SeveralFramesMakeOneCluster) {
  const Bytes content = Packable(kCluster, 40);
  const std::span all(content);
  const Bytes packed =
      Joined(Joined(Zstd(all.first(1)), Zstd(all.subspan(1, 40000))),
             Zstd(all.subspan(40001)));
  EXPECT_EQ(Unpack(CompressionType::kZstd, packed), content);
}

TEST(ZstdClustersTest, FrameWithoutAContentSizeIsUnpacked) {
  const Bytes content = Packable(kCluster, 41);
  EXPECT_EQ(Unpack(CompressionType::kZstd, ZstdStream(content, 17)), content);
}

// A frame may ask for a window of 128 MiB, which no cluster needs.
TEST(ZstdClustersTest, FrameThatAsksForAHugeWindowIsUnpacked) {
  const Bytes content = Packable(kCluster, 42);
  EXPECT_EQ(Unpack(CompressionType::kZstd, ZstdStream(content, 27)), content);
}

TEST(ZstdClustersTest, EmptyAndSkippableFramesAddNothing) {
  const Bytes content = Packable(kCluster, 43);
  Bytes skippable(8 + 5);
  const uint32_t magic = 0x184D2A50;
  for (size_t i = 0; i < 4; ++i) {
    skippable[i] = static_cast<std::byte>(magic >> 8 * i);
  }
  skippable[4] = std::byte{5};
  const Bytes packed = Joined(Joined(Zstd({}), skippable), Zstd(content));
  EXPECT_EQ(Unpack(CompressionType::kZstd, packed), content);
}

TEST(ZstdClustersTest, OnlyEmptyFramesAreLessThanACluster) {
  Bytes packed;
  for (int i = 0; i < 100; ++i) packed = Joined(std::move(packed), Zstd({}));
  EXPECT_THAT(Refusal(CompressionType::kZstd, packed),
              HasSubstr("unpacks to less than a cluster"));
}

}  // namespace
}  // namespace pellucid::qcow2
