#include "engine/qcow2/metadata_regions.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <span>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/table_entries.h"

namespace pellucid::qcow2 {
namespace {

// An image of 8 TiB with 64 KiB clusters may have 4096 snapshots. Whoever would
// read more before the first change would wait for it.
constexpr uint64_t kMaxSnapshotL1Bytes = 512 << 20;
// Tables of snapshots, each once: they map 4 PiB with 64 KiB clusters.
constexpr size_t kMaxSnapshotTables = 8 << 20;

}  // namespace

MetadataRegions::MetadataRegions(BlockDevice& file,
                                 const std::string& file_name,
                                 const Header& header,
                                 const std::vector<uint64_t>& l1_entries,
                                 const std::vector<Snapshot>& snapshots)
    : file_(file), file_name_(file_name), cluster_size_(header.cluster_size()) {
  const auto add_clusters = [&](uint64_t begin, uint64_t length) {
    if (length == 0) return;
    const uint64_t clusters = (length + cluster_size_ - 1) / cluster_size_;
    regions_.push_back({begin, begin + clusters * cluster_size_});
  };
  add_clusters(0, 1);
  add_clusters(header.l1_table_offset, uint64_t{header.l1_size} * 8);
  const uint64_t table_bytes = header.refcount_table_clusters * cluster_size_;
  add_clusters(header.refcount_table_offset, table_bytes);
  if (header.crypto_header) {
    add_clusters(header.crypto_header->offset, header.crypto_header->length);
  }
  if (!snapshots.empty()) {
    // To the start of the last entry, and that cluster.
    add_clusters(header.snapshots_offset,
                 snapshots.back().entry_offset - header.snapshots_offset + 1);
  }
  uint64_t l1_bytes = 0;
  for (const Snapshot& snapshot : snapshots) {
    const auto field = [&](const char* name, uint64_t at) {
      return fmt::format("{} (byte {}) of snapshot {}", name,
                         snapshot.entry_offset + at, snapshot.info.id);
    };
    CheckTable(file_name, file.size(), cluster_size_, snapshot.l1_table_offset,
               field("l1_table_offset", 0), snapshot.l1_size,
               field("l1_size", 8), kMaxL1Bytes);
    add_clusters(snapshot.l1_table_offset, uint64_t{snapshot.l1_size} * 8);
    snapshot_l1_.push_back({snapshot.l1_table_offset, snapshot.l1_size});
    l1_bytes += uint64_t{snapshot.l1_size} * 8;
  }
  if (l1_bytes > kMaxSnapshotL1Bytes) {
    throw Unsupported(fmt::format(
        "{}: the L1 tables of its snapshots have {} bytes, and writing is "
        "supported up to {} MiB; use --read-only",
        file_name_, l1_bytes, kMaxSnapshotL1Bytes >> 20));
  }
  std::vector<uint64_t> refcount_table(table_bytes / 8);
  file.Read(header.refcount_table_offset,
            std::as_writable_bytes(std::span(refcount_table)));
  for (const uint64_t entry : refcount_table) {
    const uint64_t block = SwapBigEndian(entry) & kOffsetMask;
    if (block != 0) add_clusters(block, 1);
  }
  for (const uint64_t entry : l1_entries) {
    if ((entry & kOffsetMask) != 0) add_clusters(entry & kOffsetMask, 1);
  }
  std::ranges::sort(regions_, {}, &Region::begin);
  dropped_ = std::vector<std::atomic<bool>>(regions_.size());
  CheckAgainstEachOther();
}

void MetadataRegions::CheckAgainstEachOther() const {
  for (size_t i = 1; i < regions_.size(); ++i) {
    if (regions_[i].begin >= regions_[i - 1].end) continue;
    throw CorruptImage(fmt::format(
        "{}: two of the image's own tables overlap at offset {}; try "
        "`pellucid check --repair all {}`, or --read-only",
        file_name_, regions_[i].begin, file_name_));
  }
}

void MetadataRegions::LoadSnapshotTables() {
  if (snapshot_l1_.empty()) return;
  std::vector<uint64_t> tables;
  const auto tidy = [&] {
    std::ranges::sort(tables);
    tables.erase(std::unique(tables.begin(), tables.end()), tables.end());
    if (tables.size() <= kMaxSnapshotTables) return;
    throw Unsupported(
        fmt::format("{}: its snapshots have more than {} L2 tables, which is "
                    "not supported for writing; use --read-only",
                    file_name_, kMaxSnapshotTables));
  };
  // Snapshots that were taken one after the other share most of their tables.
  std::vector<uint64_t> previous;
  for (const TableOfTables& l1 : snapshot_l1_) {
    std::vector<uint64_t> entries =
        ReadL1Table(file_, l1.offset, l1.entries).entries;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i < previous.size() && entries[i] == previous[i]) continue;
      const uint64_t table =
          (entries[i] & kOffsetMask) / cluster_size_ * cluster_size_;
      if (table == 0) continue;
      if (tables.size() == 2 * kMaxSnapshotTables) tidy();
      tables.push_back(table);
    }
    previous = std::move(entries);
  }
  tidy();
  tables.shrink_to_fit();
  snapshot_tables_ = std::move(tables);
  snapshot_l1_.clear();
}

size_t MetadataRegions::FirstBehind(uint64_t offset) const {
  const auto found =
      std::ranges::upper_bound(regions_, offset, {}, &Region::end);
  return static_cast<size_t>(found - regions_.begin());
}

void MetadataRegions::Add(uint64_t begin, uint64_t length) {
  const std::lock_guard lock(added_mutex_);
  for (uint64_t at = begin; at < begin + length; at += cluster_size_) {
    added_.insert(at);
  }
  has_added_ = true;
}

void MetadataRegions::Drop(uint64_t begin, uint64_t length) {
  for (size_t i = FirstBehind(begin);
       i < regions_.size() && regions_[i].begin < begin + length; ++i) {
    dropped_[i] = true;
  }
  const std::lock_guard lock(added_mutex_);
  added_.erase(added_.lower_bound(begin), added_.lower_bound(begin + length));
}

bool MetadataRegions::Overlap(uint64_t begin, uint64_t length) const {
  for (size_t i = FirstBehind(begin);
       i < regions_.size() && regions_[i].begin < begin + length; ++i) {
    if (!dropped_[i]) return true;
  }
  return OverlapSnapshotTable(begin, length) || OverlapAdded(begin, length);
}

// The first cluster that ends behind `begin` is the first that begins at the
// one with `begin` in it, or later.
bool MetadataRegions::OverlapSnapshotTable(uint64_t begin,
                                           uint64_t length) const {
  const auto found = std::ranges::lower_bound(
      snapshot_tables_, begin / cluster_size_ * cluster_size_);
  return found != snapshot_tables_.end() && *found < begin + length;
}

bool MetadataRegions::OverlapAdded(uint64_t begin, uint64_t length) const {
  if (!has_added_) return false;
  const std::shared_lock lock(added_mutex_);
  const auto found = added_.lower_bound(begin / cluster_size_ * cluster_size_);
  return found != added_.end() && *found < begin + length;
}

void MetadataRegions::Check(uint64_t begin, uint64_t length,
                            const char* what) const {
  if (!Overlap(begin, length)) return;
  throw CorruptImage(fmt::format(
      "{}: {} at offset {} would overwrite the image's own tables; try "
      "`pellucid check --repair all {}`",
      file_name_, what, begin, file_name_));
}

}  // namespace pellucid::qcow2
