// What the engine costs beside the ciphers and the host: looking clusters up,
// gathering writes, unpacking compressed clusters.

#include <benchmark/benchmark.h>
#include <libdeflate.h>
#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/big_endian.h"
#include "engine/cluster_cache.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/compressed_clusters.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/table_entries.h"
#include "engine/writable_device.h"

namespace pellucid {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kCluster = 64 << 10;
constexpr uint64_t kPage = 4096;

// A file in memory.
class MemoryFile : public BlockDevice {
 public:
  explicit MemoryFile(Bytes content) : content_(std::move(content)) {}
  uint64_t size() const override { return content_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    std::memcpy(out.data(), content_.data() + offset, out.size());
  }
  Extent ExtentAt(uint64_t, uint64_t max_length) override {
    return {.length = max_length, .is_hole = false};
  }

 private:
  const Bytes content_;
};

// Takes everything and keeps nothing.
class Sink : public WritableDevice {
 public:
  uint64_t size() const override { return uint64_t{1} << 40; }
  void Read(uint64_t, std::span<std::byte> out) override {
    benchmark::DoNotOptimize(out.data());
  }
  Extent ExtentAt(uint64_t, uint64_t max_length) override {
    return {.length = max_length, .is_hole = false};
  }
  void Write(uint64_t, std::span<const std::byte>) override {}
  void WriteZeroes(uint64_t, uint64_t, ZeroMode) override {}
  void Flush() override {}
};

// --- Cluster map ------------------------------------------------------------

constexpr uint32_t kTables = 256;  // 16 MiB of L2 tables, 128 GiB of guest.
constexpr uint64_t kL2CacheBytes = 1 << 20;

// Every cluster is allocated; no two neighbours are neighbours in the file too
// unless `contiguous`.
class MappedImage {
 public:
  explicit MappedImage(bool contiguous) {
    header_.version = 3;
    header_.cluster_bits = 16;
    header_.l1_table_offset = kCluster;
    header_.l1_size = kTables;
    Bytes bytes((2 + kTables) * kCluster);
    for (uint64_t table = 0; table < kTables; ++table) {
      StoreBigEndian(std::span(bytes), kCluster + table * 8,
                     ((2 + table) * kCluster) | qcow2::kCopied);
    }
    const uint64_t entries = kTables * header_.l2_entries();
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t place = contiguous ? i : i ^ 1;
      StoreBigEndian(std::span(bytes), 2 * kCluster + i * 8,
                     ((1000 + place) * kCluster) | qcow2::kCopied);
    }
    file_ = std::make_unique<MemoryFile>(std::move(bytes));
    map_ = std::make_unique<qcow2::ClusterMap>(
        *file_, "bench", header_,
        qcow2::ReadL1Table(*file_, header_.l1_table_offset, header_.l1_size),
        kL2CacheBytes);
  }

  qcow2::ClusterMap& map() { return *map_; }
  uint64_t size() const { return kTables * header_.l2_coverage(); }

 private:
  qcow2::Header header_;
  std::unique_ptr<MemoryFile> file_;
  std::unique_ptr<qcow2::ClusterMap> map_;
};

MappedImage& Fragmented() {
  static MappedImage image(false);
  return image;
}

// One cluster somewhere in the first `range` bytes: entries are in the cache if
// their part of the tables fits there. On several threads they share it.
void MapCluster(benchmark::State& state, uint64_t range) {
  MappedImage& image = Fragmented();
  std::minstd_rand random(static_cast<unsigned>(state.thread_index()) + 1);
  for (auto _ : state) {
    const uint64_t cluster = random() % (range / kCluster);
    benchmark::DoNotOptimize(image.map().Map({cluster * kCluster}, kPage));
  }
}

void MapHit(benchmark::State& state) {
  MapCluster(state, kL2CacheBytes / 2 / 8 * kCluster);
}
BENCHMARK(MapHit)->ThreadRange(1, 2);

void MapMiss(benchmark::State& state) {
  MapCluster(state, Fragmented().size());
}
BENCHMARK(MapMiss)->ThreadRange(1, 2);

// All of the image by runs, as ExtentAt() does it; the figure is of clusters.
void MapWalk(benchmark::State& state) {
  MappedImage image(state.range(0) != 0);
  for (auto _ : state) {
    for (uint64_t at = 0; at < image.size();) {
      at += image.map().Map({at}, image.size() - at).length;
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(image.size() / kCluster));
}
BENCHMARK(MapWalk)->ArgName("contiguous")->Arg(0)->Arg(1);

// --- Cluster cache ----------------------------------------------------------

std::unique_ptr<ClusterCache> MakeCache() {
  return std::make_unique<ClusterCache>(std::make_unique<Sink>());
}

// The same 16 MiB again and again, which stay dirty.
void CacheWriteHit(benchmark::State& state) {
  const auto cache = MakeCache();
  const Bytes page(kPage);
  uint64_t at = 0;
  for (auto _ : state) {
    cache->Write(at, page);
    at = (at + kPage) % (16 << 20);
  }
}
BENCHMARK(CacheWriteHit);

// Ever new pages: each is taken, gathered and written back.
void CacheWriteMiss(benchmark::State& state) {
  const auto cache = MakeCache();
  const Bytes page(kPage);
  uint64_t at = 0;
  for (auto _ : state) {
    cache->Write(at, page);
    at = (at + kPage) % cache->size();
  }
  cache->Flush();
}
BENCHMARK(CacheWriteMiss);

void CacheReadHit(benchmark::State& state) {
  const auto cache = MakeCache();
  Bytes page(kPage);
  for (uint64_t at = 0; at < 16 << 20; at += kPage) cache->Write(at, page);
  uint64_t at = 0;
  for (auto _ : state) {
    cache->Read(at, page);
    at = (at + kPage) % (16 << 20);
  }
}
BENCHMARK(CacheReadHit);

// What is not there, while something else is dirty or (clean:1) nothing.
void CacheReadMiss(benchmark::State& state) {
  const auto cache = MakeCache();
  Bytes page(kPage);
  for (uint64_t at = 0; at < 16 << 20; at += kPage) cache->Write(at, page);
  if (state.range(0) != 0) cache->Flush();
  uint64_t at = 1 << 30;
  for (auto _ : state) {
    cache->Read(at, page);
    at += kPage;
    if (at == cache->size()) at = 1 << 30;
  }
}
BENCHMARK(CacheReadMiss)->ArgName("clean")->Arg(0)->Arg(1);

// --- Compressed clusters ----------------------------------------------------

// Packs to about a third.
Bytes Words() {
  std::minstd_rand random(1);
  Bytes content(kCluster);
  for (size_t i = 0; i + 8 <= content.size(); i += 8) {
    const uint64_t word = random() % 512 * 0x9e3779b97f4a7c15;
    std::memcpy(&content[i], &word, sizeof word);
  }
  return content;
}

Bytes Deflate(const Bytes& content) {
  libdeflate_compressor* const compressor = libdeflate_alloc_compressor(6);
  Bytes packed(libdeflate_deflate_compress_bound(compressor, content.size()));
  packed.resize(libdeflate_deflate_compress(compressor, content.data(),
                                            content.size(), packed.data(),
                                            packed.size()));
  libdeflate_free_compressor(compressor);
  return packed;
}

Bytes Zstd(const Bytes& content) {
  Bytes packed(ZSTD_compressBound(content.size()));
  const size_t size = ZSTD_compress(packed.data(), packed.size(),
                                    content.data(), content.size(), 3);
  if (ZSTD_isError(size) != 0) throw std::runtime_error("zstd failed");
  packed.resize(size);
  return packed;
}

// Reads of `length` bytes: whole clusters are unpacked each time, small pieces
// of one come from what is kept.
void Compressed(benchmark::State& state, qcow2::CompressionType type,
                uint64_t length) {
  static const Bytes zlib = Deflate(Words());
  static const Bytes zstd = Zstd(Words());
  const Bytes& packed = type == qcow2::CompressionType::kZlib ? zlib : zstd;
  MemoryFile file(packed);
  qcow2::CompressedClusters clusters(file, "bench", type, kCluster);
  const qcow2::Mapping mapping = {.kind = qcow2::ClusterKind::kCompressed,
                                  .length = kCluster,
                                  .host = {0},
                                  .compressed_size = packed.size()};
  Bytes out(length);
  for (auto _ : state) {
    clusters.Read(mapping, 0, out);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(length));
}
BENCHMARK_CAPTURE(Compressed, zlib, qcow2::CompressionType::kZlib, kCluster)
    ->ThreadRange(1, 2);
BENCHMARK_CAPTURE(Compressed, zstd, qcow2::CompressionType::kZstd, kCluster)
    ->ThreadRange(1, 2);
BENCHMARK_CAPTURE(Compressed, kept, qcow2::CompressionType::kZlib, kPage);

}  // namespace
}  // namespace pellucid

BENCHMARK_MAIN();
