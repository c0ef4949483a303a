#include "engine/stale_clusters.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/big_endian.h"
#include "engine/byte_kind.h"
#include "engine/image_layers.h"
#include "engine/qcow2/reference_scan.h"
#include "engine/qcow2/unallocated_clusters.h"

namespace pellucid {
namespace {

enum class Look { kZeros, kNoise, kTable, kPlain };

// L1 and L2 tables and the refcount table: nothing but offsets of clusters in
// the file, with flags in the first and the last bits.
bool IsTableOfOffsets(std::span<const std::byte> block, uint64_t cluster_size,
                      uint64_t file_size) {
  constexpr uint64_t kOffset = 0x00fffffffffffe00;
  constexpr uint64_t kFlags = 0xc000000000000001;
  for (size_t at = 0; at + 8 <= block.size(); at += 8) {
    const uint64_t word = LoadBigEndian<uint64_t>(block, at);
    const uint64_t offset = word & kOffset;
    if ((word & ~(kOffset | kFlags)) != 0 || offset % cluster_size != 0 ||
        offset > file_size) {
      return false;
    }
  }
  return true;
}

// A refcount block with the usual 16 bits: nothing but small numbers.
bool IsRefcountBlock(std::span<const std::byte> block) {
  constexpr uint64_t kGreatestUsual = 16;
  for (size_t at = 0; at + 2 <= block.size(); at += 2) {
    if (LoadBigEndian<uint16_t>(block, at) > kGreatestUsual) return false;
  }
  return true;
}

// The first entry of a snapshot table, with the place of an L1 table and an id
// of digits.
bool IsSnapshotTable(std::span<const std::byte> block, uint64_t cluster_size,
                     uint64_t file_size) {
  constexpr size_t kFixedBytes = 40;
  constexpr uint64_t kMaxL1Entries = 4 << 20;
  constexpr uint64_t kMaxIdBytes = 20;
  constexpr uint64_t kMaxExtraBytes = 1024;
  if (block.size() < kFixedBytes) return false;
  const uint64_t l1_table_offset = LoadBigEndian<uint64_t>(block, 0);
  const uint64_t l1_size = LoadBigEndian<uint32_t>(block, 8);
  const uint64_t id_size = LoadBigEndian<uint16_t>(block, 12);
  const uint64_t extra_size = LoadBigEndian<uint32_t>(block, 36);
  if (l1_table_offset == 0 || l1_table_offset % cluster_size != 0 ||
      l1_table_offset > file_size || l1_size == 0 || l1_size > kMaxL1Entries ||
      id_size == 0 || id_size > kMaxIdBytes || extra_size > kMaxExtraBytes ||
      kFixedBytes + extra_size + id_size > block.size()) {
    return false;
  }
  return std::ranges::all_of(
      block.subspan(static_cast<size_t>(kFixedBytes + extra_size),
                    static_cast<size_t>(id_size)),
      [](std::byte c) { return c >= std::byte{'0'} && c <= std::byte{'9'}; });
}

class Scanner {
 public:
  Scanner(StaleClusters& stale, BlockDevice& clusters)
      : stale_(stale), clusters_(clusters), buffer_(stale.cluster_size) {}

  void Scan(const WorkWatch& watch) {
    const uint64_t size = clusters_.size();
    for (uint64_t at = 0; at < size;) {
      if (watch) watch(at, size);
      const Extent extent = clusters_.ExtentAt(at, size - at);
      const uint64_t end = at + extent.length;
      if (extent.is_hole) {
        at = end;
        continue;
      }
      const uint64_t cluster = at / stale_.cluster_size * stale_.cluster_size;
      LookAtCluster(cluster);
      at = cluster + stale_.cluster_size;
    }
  }

 private:
  void LookAtCluster(uint64_t offset) {
    const std::span bytes = std::span(buffer_).first(static_cast<size_t>(
        std::min(stale_.cluster_size, clusters_.size() - offset)));
    clusters_.Read(offset, bytes);
    Look look = Look::kZeros;
    for (size_t at = 0; at < bytes.size(); at += kByteKindBlock) {
      const std::span block =
          bytes.subspan(at, std::min(kByteKindBlock, bytes.size() - at));
      const bool is_table =
          at == 0 &&
          IsSnapshotTable(block, stale_.cluster_size, clusters_.size());
      look = std::max(look, is_table ? Look::kTable : LookOf(block));
    }
    Count(look, offset);
  }

  Look LookOf(std::span<const std::byte> block) const {
    switch (ByteKindOf(block)) {
      case ByteKind::kZeros:
        return Look::kZeros;
      case ByteKind::kRandom:
        return Look::kNoise;
      case ByteKind::kText:
        return Look::kPlain;
      case ByteKind::kMixed:
        break;
    }
    return IsTableOfOffsets(block, stale_.cluster_size, clusters_.size()) ||
                   IsRefcountBlock(block)
               ? Look::kTable
               : Look::kPlain;
  }

  void Count(Look look, uint64_t offset) {
    switch (look) {
      case Look::kZeros:
        return;
      case Look::kNoise:
        ++stale_.noise;
        if (!stale_.first_noise) stale_.first_noise = offset;
        return;
      case Look::kTable:
        ++stale_.tables;
        return;
      case Look::kPlain:
        ++stale_.plain;
        if (!stale_.first_plain) stale_.first_plain = offset;
        return;
    }
  }

  StaleClusters& stale_;
  BlockDevice& clusters_;
  std::vector<std::byte> buffer_;
};

}  // namespace

std::optional<StaleClusters> FindStaleClusters(const OpenOptions& options,
                                               const WorkWatch& watch) {
  CheckOptions(options);
  OpenOptions reading = options;
  reading.writable = false;
  reading.allow_backing = false;
  const auto layer = OpenLayers(options.image, options.format, "", reading,
                                IfNamedFileFails::kNote);
  if (!layer->qcow2 || layer->data_file ||
      layer->qcow2->has(qcow2::kExternalDataFile)) {
    return std::nullopt;
  }
  const qcow2::ReferenceScan scan =
      qcow2::ScanReferences(layer->file.device(), options.image.native(),
                            *layer->qcow2, layer->snapshots);
  StaleClusters stale;
  stale.cluster_size = layer->qcow2->cluster_size();
  stale.compressed_entries = scan.compressed_entries;
  stale.tables_are_damaged = scan.corruptions.count() != 0;
  qcow2::UnallocatedClusters clusters(std::move(layer->file.read_only),
                                      scan.counts, stale.cluster_size, nullptr);
  Scanner(stale, clusters).Scan(watch);
  return stale;
}

}  // namespace pellucid
