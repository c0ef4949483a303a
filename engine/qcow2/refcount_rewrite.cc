#include "engine/qcow2/refcount_rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/header_fields.h"
#include "engine/qcow2/refcount_entries.h"
#include "engine/qcow2/table_entries.h"
#include "engine/qcow2/table_words.h"

namespace pellucid::qcow2 {

void RefcountRewrite::Write() {
  ReadPresent();
  FindBlocks();
  Place();
  for (const auto& [number, cluster] : blocks_) WriteBlock(number, cluster);
  WriteTable();
}

void RefcountRewrite::ReadPresent() {
  const uint64_t begin = parts_.header.refcount_table_offset;
  const uint64_t bytes = parts_.header.refcount_table_clusters * cluster_size();
  for (uint64_t at = 0; at < bytes && !parts_.rebuilds; at += cluster_size()) {
    dropped_.Add((begin + at) / cluster_size());
  }
  ForEachPiece(parts_.file, begin, begin + bytes,
               [&](uint64_t, std::span<const uint64_t> words) {
                 for (const uint64_t word : words) {
                   const uint64_t block = word & ~kRefcountTableReserved;
                   present_blocks_.push_back(block);
                   if (block != 0 && !parts_.rebuilds) {
                     dropped_.Add(block / cluster_size());
                   }
                 }
               });
}

// Blocks for whatever is referred to, and those there are, which may count
// leaked clusters.
void RefcountRewrite::FindBlocks() {
  for (uint64_t number = 0; number < present_blocks_.size(); ++number) {
    if (present_blocks_[number] != 0 && !parts_.rebuilds) {
      NeedBlockOf(number * block_entries());
    }
  }
  uint64_t needed = UINT64_MAX;  // The block that was noted last.
  parts_.after.ForEachCounted(0, parts_.after.size(), [&](uint64_t cluster) {
    if (cluster / block_entries() == needed || dropped_.Has(cluster)) return;
    NeedBlockOf(cluster);
    needed = cluster / block_entries();
  });
}

void RefcountRewrite::NeedBlockOf(uint64_t cluster) {
  const uint64_t number = cluster / block_entries();
  if (blocks_.try_emplace(number, 0).second) unplaced_.push_back(number);
}

// Blocks and table are counted by blocks themselves: each may need another.
void RefcountRewrite::Place() {
  const uint64_t per_cluster = cluster_size() / 8;
  for (;;) {
    while (!unplaced_.empty()) {
      const uint64_t number = unplaced_.back();
      unplaced_.pop_back();
      const uint64_t cluster = parts_.spare.Take(1);
      blocks_[number] = cluster;
      added_.Add(cluster);
      NeedBlockOf(cluster);
    }
    const uint64_t entries = blocks_.rbegin()->first + 1;
    if (entries <= table_.count * per_cluster) return;
    PlaceTable(std::max<uint64_t>(parts_.header.refcount_table_clusters,
                                  (entries + per_cluster - 1) / per_cluster));
  }
}

void RefcountRewrite::PlaceTable(uint64_t clusters) {
  if (clusters * cluster_size() > kMaxRefcountTableBytes) {
    throw IoError(
        ENOSPC, fmt::format("{}: the refcount table would need {} bytes, more "
                            "than the {} MiB that are supported; an image "
                            "with larger clusters holds more",
                            parts_.file_name, clusters * cluster_size(),
                            kMaxRefcountTableBytes >> 20));
  }
  for (uint64_t i = 0; i < table_.count; ++i) {
    added_.Remove(table_.first + i);
  }
  if (table_.count != 0) parts_.spare.GiveBack(table_.first, table_.count);
  table_ = {.first = parts_.spare.Take(clusters), .count = clusters};
  for (uint64_t i = 0; i < clusters; ++i) {
    added_.Add(table_.first + i);
    NeedBlockOf(table_.first + i);
  }
}

uint64_t RefcountRewrite::NewCount(uint64_t cluster, uint64_t stored) const {
  const uint64_t leaked = parts_.rebuilds || parts_.header.has(kDirty)
                              ? 0
                              : stored - parts_.before[cluster];
  return leaked + parts_.after[cluster] - (dropped_.Has(cluster) ? 1 : 0) +
         (added_.Has(cluster) ? 1 : 0);
}

void RefcountRewrite::WriteBlock(uint64_t number, uint64_t cluster) {
  buffer_.assign(cluster_size(), std::byte{0});
  if (number < present_blocks_.size() && present_blocks_[number] != 0) {
    ReadZeroPadded(parts_.file, present_blocks_[number], buffer_);
  }
  const uint32_t order = parts_.header.refcount_order;
  const uint64_t first = number * block_entries();
  for (uint64_t i = 0; i < block_entries(); ++i) {
    const uint64_t stored = LoadRefcount(buffer_, i, order);
    const uint64_t count = NewCount(first + i, stored);
    if (count > GreatestRefcount(order)) {
      throw Unsupported(fmt::format(
          "{}: the refcount of the cluster at offset {} would be {}, which {} "
          "bits do not hold",
          parts_.file_name, (first + i) * cluster_size(), count, 1U << order));
    }
    StoreRefcount(buffer_, i, order, count);
    Note(first + i, stored, count);
  }
  parts_.file.Write(cluster * cluster_size(), buffer_);
}

void RefcountRewrite::Note(uint64_t cluster, uint64_t stored, uint64_t count) {
  if (count != 0) used_end_ = cluster + 1;
  if (stored == 0 || count != 0) return;
  if (!freed_.empty() && freed_.back().first + freed_.back().count == cluster) {
    ++freed_.back().count;
  } else {
    freed_.push_back({.first = cluster, .count = 1});
  }
}

void RefcountRewrite::WriteTable() {
  buffer_.assign(table_.count * cluster_size(), std::byte{0});
  for (const auto& [number, cluster] : blocks_) {
    StoreBigEndian(std::span(buffer_), number * 8, cluster * cluster_size());
  }
  parts_.file.Write(table_offset(), buffer_);
}

}  // namespace pellucid::qcow2
