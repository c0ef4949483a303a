#include "engine/qcow2/refcounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/header_fields.h"
#include "engine/qcow2/table_entries.h"

namespace pellucid::qcow2 {
namespace {

// Blocks without changes are kept up to this.
constexpr uint64_t kMaxBlockBytes = 8 << 20;
// Blocks are made for about so much of the file at a time, since each time
// costs a flush.
constexpr uint64_t kCoverageAtOnce = 64 << 20;
// What of a block is written at the least.
constexpr size_t kSector = 512;

}  // namespace

Refcounts::Refcounts(ResizableDevice& file, std::string file_name,
                     const Header& header, MetadataRegions& regions)
    : file_(file),
      file_name_(std::move(file_name)),
      cluster_size_(header.cluster_size()),
      bits_(1U << header.refcount_order),
      entries_per_block_(cluster_size_ * 8 / bits_),
      greatest_(bits_ == 64 ? UINT64_MAX : (uint64_t{1} << bits_) - 1),
      regions_(regions),
      table_offset_(header.refcount_table_offset),
      table_(header.refcount_table_clusters * cluster_size_ / 8) {
  file_.Read(table_offset_, std::as_writable_bytes(std::span(table_)));
  for (uint64_t& entry : table_) entry = SwapBigEndian(entry);
}

Refcounts::Block* Refcounts::Load(uint64_t number) {
  if (number >= table_.size() || table_[number] == 0) return nullptr;
  const auto found = blocks_.find(number);
  if (found != blocks_.end()) return found->second.get();
  const uint64_t offset = table_[number];
  if (offset % cluster_size_ != 0 || (offset & ~kOffsetMask) != 0 ||
      offset > file_.size() || cluster_size_ > file_.size() - offset) {
    throw CorruptImage(fmt::format(
        "{}: refcount table entry {} (byte {}) is {:#x}, which is not a "
        "multiple of the {}-byte cluster within the {}-byte file; try "
        "`pellucid check --repair all {}`",
        file_name_, number, table_offset_ + number * 8, offset, cluster_size_,
        file_.size(), file_name_));
  }
  if ((blocks_.size() + 1) * cluster_size_ > kMaxBlockBytes) DropCleanBlocks();
  auto block = std::make_unique<Block>();
  block->bytes.resize(cluster_size_);
  file_.Read(offset, block->bytes);
  return (blocks_[number] = std::move(block)).get();
}

bool Refcounts::is_crowded() const {
  return blocks_.size() * cluster_size_ > 2 * kMaxBlockBytes;
}

void Refcounts::DropCleanBlocks() {
  std::erase_if(blocks_, [](const auto& item) {
    return !item.second->is_changed() && !item.second->is_taken;
  });
}

uint64_t Refcounts::GetIn(const Block& block, uint64_t index) const {
  const std::span<const std::byte> bytes(block.bytes);
  switch (bits_) {
    case 8:
      return std::to_integer<uint64_t>(bytes[index]);
    case 16:
      return LoadBigEndian<uint16_t>(bytes, index * 2);
    case 32:
      return LoadBigEndian<uint32_t>(bytes, index * 4);
    case 64:
      return LoadBigEndian<uint64_t>(bytes, index * 8);
    default: {
      // The first entry is in the lowest bits of a byte.
      const uint64_t in_byte = 8 / bits_;
      return std::to_integer<uint64_t>(bytes[index / in_byte]) >>
                 (index % in_byte * bits_) &
             greatest_;
    }
  }
}

void Refcounts::SetIn(Block& block, uint64_t index, uint64_t value) {
  const std::span bytes(block.bytes);
  switch (bits_) {
    case 8:
      bytes[index] = static_cast<std::byte>(value);
      break;
    case 16:
      StoreBigEndian(bytes, index * 2, static_cast<uint16_t>(value));
      break;
    case 32:
      StoreBigEndian(bytes, index * 4, static_cast<uint32_t>(value));
      break;
    case 64:
      StoreBigEndian(bytes, index * 8, value);
      break;
    default: {
      const uint64_t in_byte = 8 / bits_;
      const uint64_t shift = index % in_byte * bits_;
      std::byte& byte = bytes[index / in_byte];
      byte = static_cast<std::byte>(
          (std::to_integer<uint64_t>(byte) & ~(greatest_ << shift)) |
          value << shift);
    }
  }
}

void Refcounts::MarkChanged(Block& block, size_t begin, size_t end) {
  const size_t before =
      block.is_changed() ? block.changed_end - block.changed_begin : 0;
  block.changed_begin = std::min(block.changed_begin, begin);
  block.changed_end = std::max(block.changed_end, end);
  changed_bytes_ += block.changed_end - block.changed_begin - before;
}

uint64_t Refcounts::Get(uint64_t cluster) {
  const Block* const block = Load(BlockOf(cluster));
  return block == nullptr ? 0 : GetIn(*block, cluster % entries_per_block_);
}

void Refcounts::Set(uint64_t cluster, uint64_t value) {
  if (value > greatest_) {
    throw CorruptImage(fmt::format(
        "{}: the refcount of the cluster at offset {} would be {}, which {} "
        "bits do not hold",
        file_name_, cluster * cluster_size_, value, bits_));
  }
  const uint64_t number = BlockOf(cluster);
  Block* block = Load(number);
  if (block == nullptr) {
    CreateBlocks(number);
    block = Load(number);
  }
  const uint64_t index = cluster % entries_per_block_;
  SetIn(*block, index, value);
  const size_t byte = index * bits_ / 8 / kSector * kSector;
  if (!block->is_changed()) changed_blocks_.push_back(number);
  MarkChanged(*block, byte, byte + kSector);
  if (value == 0) lowest_free_ = std::min(lowest_free_, cluster);
}

bool Refcounts::Decrement(uint64_t cluster) {
  const uint64_t count = Get(cluster);
  if (count == 0) {
    throw CorruptImage(fmt::format(
        "{}: the cluster at offset {} was in use but its refcount is 0; try "
        "`pellucid check --repair all {}`",
        file_name_, cluster * cluster_size_, file_name_));
  }
  Set(cluster, count - 1);
  return count == 1;
}

uint64_t Refcounts::FindFree(const Block& block, uint64_t index) const {
  while (index < entries_per_block_ && GetIn(block, index) != 0) ++index;
  return index;
}

void Refcounts::RefuseUsed(uint64_t first_cluster, uint64_t count) const {
  regions_.Check(first_cluster * cluster_size_, count * cluster_size_,
                 "a cluster whose refcount says that it is free,");
}

HostClusters Refcounts::Allocate(uint64_t wanted) {
  for (uint64_t cluster = lowest_free_;;) {
    const uint64_t number = BlockOf(cluster);
    const Block* const block = Load(number);
    if (block == nullptr) {
      CreateBlocks(number);
      // A table that has grown leaves the place where it was.
      cluster = lowest_free_;
      continue;
    }
    uint64_t index = FindFree(*block, cluster % entries_per_block_);
    cluster = number * entries_per_block_ + index;
    lowest_free_ = cluster;
    if (index == entries_per_block_) continue;
    HostClusters run = {.first = cluster, .count = 0};
    while (run.count < wanted && index < entries_per_block_ &&
           GetIn(*block, index) == 0) {
      ++run.count;
      ++index;
    }
    RefuseUsed(run.first, run.count);
    for (uint64_t i = 0; i < run.count; ++i) Set(run.first + i, 1);
    lowest_free_ = run.first + run.count;
    return run;
  }
}

HostClusters Refcounts::AllocateExactly(uint64_t count) {
  // Runs that are too short are given back at the end, or they would be found
  // again.
  std::vector<HostClusters> runs = {Allocate(count)};
  const auto release_all = [&] {
    for (const HostClusters& run : runs) Release(run);
  };
  while (runs.back().count < count) {
    HostClusters more;
    try {
      more = Allocate(count - runs.back().count);
    } catch (...) {
      release_all();
      throw;
    }
    HostClusters& last = runs.back();
    if (more.first == last.first + last.count) {
      last.count += more.count;
    } else {
      runs.push_back(more);
    }
  }
  const HostClusters found = runs.back();
  runs.pop_back();
  release_all();
  return found;
}

void Refcounts::Release(const HostClusters& clusters) {
  for (uint64_t i = 0; i < clusters.count; ++i) {
    Set(clusters.first + i, Get(clusters.first + i) - 1);
  }
}

std::vector<Refcounts::Change> Refcounts::TakeChanges() {
  std::vector<Change> changes;
  changes.reserve(changed_blocks_.size());
  for (const uint64_t number : changed_blocks_) {
    Block& block = *blocks_.at(number);
    const auto begin = block.bytes.begin();
    changes.push_back(
        {.block = number,
         .offset = table_[number] + block.changed_begin,
         .bytes = {begin + static_cast<ptrdiff_t>(block.changed_begin),
                   begin + static_cast<ptrdiff_t>(block.changed_end)}});
    block.changed_begin = SIZE_MAX;
    block.changed_end = 0;
    block.is_taken = true;
  }
  changed_blocks_.clear();
  changed_bytes_ = 0;
  return changes;
}

void Refcounts::ChangesWritten(const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    blocks_.at(change.block)->is_taken = false;
  }
}

void Refcounts::ChangesNotWritten(const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    Block& block = *blocks_.at(change.block);
    block.is_taken = false;
    if (!block.is_changed()) changed_blocks_.push_back(change.block);
    const size_t begin = change.offset - table_[change.block];
    MarkChanged(block, begin, begin + change.bytes.size());
  }
}

void Refcounts::WriteNewBlocks(uint64_t first_block, uint64_t count,
                               uint64_t begin, uint64_t end) {
  for (uint64_t i = 0; i < count; ++i) {
    auto block = std::make_unique<Block>();
    block->bytes.resize(cluster_size_);
    const uint64_t covers = (first_block + i) * entries_per_block_;
    for (uint64_t cluster = std::max(begin, covers);
         cluster < std::min(end, covers + entries_per_block_); ++cluster) {
      SetIn(*block, cluster - covers, 1);
    }
    file_.Write((begin + i) * cluster_size_, block->bytes);
    blocks_[first_block + i] = std::move(block);
  }
}

void Refcounts::MakeBlockAt(
    uint64_t number, uint64_t place,
    const std::function<uint64_t(uint64_t cluster)>& count_of) {
  RefuseUsed(place, 1);
  auto block = std::make_unique<Block>();
  block->bytes.resize(cluster_size_);
  for (uint64_t i = 0; i < entries_per_block_; ++i) {
    SetIn(*block, i, count_of(number * entries_per_block_ + i));
  }
  file_.Write(place * cluster_size_, block->bytes);
  file_.Flush();
  std::array<std::byte, 8> entry;
  StoreBigEndian(entry, 0, place * cluster_size_);
  file_.Write(table_offset_ + number * 8, entry);
  table_[number] = place * cluster_size_;
  regions_.Add(table_[number], cluster_size_);
}

void Refcounts::CreateBlocks(uint64_t number) {
  if (number >= table_.size()) return GrowTable(number + 1);
  // As many as there are already at the most: a small image stays small.
  const uint64_t coverage = entries_per_block_ * cluster_size_;
  const uint64_t most =
      std::min({std::max<uint64_t>(kCoverageAtOnce / coverage, 1),
                std::max<uint64_t>(number, 1), entries_per_block_,
                table_.size() - number});
  uint64_t count = 1;
  while (count < most && table_[number + count] == 0) ++count;
  // They stand where the first of them begins to count, so that they count
  // themselves.
  const uint64_t first = number * entries_per_block_;
  RefuseUsed(first, count);
  WriteNewBlocks(number, count, first, first + count);
  // Nothing may point to a block that is not there yet.
  file_.Flush();
  std::vector<std::byte> entries(count * 8);
  for (uint64_t i = 0; i < count; ++i) {
    StoreBigEndian(entries, i * 8, (first + i) * cluster_size_);
  }
  file_.Write(table_offset_ + number * 8, entries);
  for (uint64_t i = 0; i < count; ++i) {
    table_[number + i] = (first + i) * cluster_size_;
  }
  regions_.Add(first * cluster_size_, count * cluster_size_);
}

void Refcounts::GrowTable(uint64_t least_entries) {
  const uint64_t per_cluster = cluster_size_ / 8;
  // The new table and the blocks that count it stand where the old one's reach
  // ended.
  const uint64_t first_block = table_.size();
  const uint64_t first = first_block * entries_per_block_;
  uint64_t table_clusters = 0;
  uint64_t block_count = 0;
  uint64_t entries =
      std::max(least_entries, table_.size() + table_.size() / 2 + 1);
  for (;;) {
    table_clusters = (entries + per_cluster - 1) / per_cluster;
    while (block_count * entries_per_block_ < block_count + table_clusters) {
      ++block_count;
    }
    if (first_block + block_count <= table_clusters * per_cluster) break;
    entries = first_block + block_count;
  }
  if (table_clusters * cluster_size_ > kMaxRefcountTableBytes) {
    throw IoError(
        ENOSPC, fmt::format("{}: the refcount table would need {} bytes, more "
                            "than the {} MiB that are supported; an image "
                            "with larger clusters holds more",
                            file_name_, table_clusters * cluster_size_,
                            kMaxRefcountTableBytes >> 20));
  }
  const uint64_t end = first + block_count + table_clusters;
  RefuseUsed(first, end - first);
  std::vector<uint64_t> table = table_;
  table.resize(table_clusters * per_cluster);
  for (uint64_t i = 0; i < block_count; ++i) {
    table[first_block + i] = (first + i) * cluster_size_;
  }
  std::vector<std::byte> encoded(table.size() * 8);
  for (size_t i = 0; i < table.size(); ++i) {
    StoreBigEndian(encoded, i * 8, table[i]);
  }
  const uint64_t new_offset = (first + block_count) * cluster_size_;
  WriteNewBlocks(first_block, block_count, first, end);
  file_.Write(new_offset, encoded);
  file_.Flush();
  // Both fields stand side by side in the first sector.
  std::array<std::byte, 12> fields;
  StoreBigEndian(fields, 0, new_offset);
  StoreBigEndian(fields, 8, static_cast<uint32_t>(table_clusters));
  file_.Write(kRefcountTableOffset.byte, fields);
  const HostClusters old = {.first = table_offset_ / cluster_size_,
                            .count = table_.size() / per_cluster};
  table_ = std::move(table);
  table_offset_ = new_offset;
  regions_.Add(first * cluster_size_, (end - first) * cluster_size_);
  // If this fails the old table's clusters stay counted: the header may still
  // name them.
  file_.Flush();
  regions_.Drop(old.first * cluster_size_, old.count * cluster_size_);
  for (uint64_t i = 0; i < old.count; ++i) Decrement(old.first + i);
}

}  // namespace pellucid::qcow2
