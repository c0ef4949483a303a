#include "engine/qcow2/metadata_regions.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/table_entries.h"

namespace pellucid::qcow2 {

MetadataRegions::MetadataRegions(BlockDevice& file,
                                 const std::string& file_name,
                                 const Header& header,
                                 const std::vector<uint64_t>& l1_entries,
                                 const std::vector<Snapshot>& snapshots) {
  const uint64_t cluster_size = header.cluster_size();
  const auto add_clusters = [&](uint64_t begin, uint64_t length) {
    if (length == 0) return;
    const uint64_t clusters = (length + cluster_size - 1) / cluster_size;
    regions_.push_back({begin, begin + clusters * cluster_size});
  };
  add_clusters(0, 1);
  add_clusters(header.l1_table_offset, uint64_t{header.l1_size} * 8);
  const uint64_t table_bytes = header.refcount_table_clusters * cluster_size;
  add_clusters(header.refcount_table_offset, table_bytes);
  if (header.crypto_header) {
    add_clusters(header.crypto_header->offset, header.crypto_header->length);
  }
  if (!snapshots.empty()) {
    // To the start of the last entry, and that cluster.
    add_clusters(header.snapshots_offset,
                 snapshots.back().entry_offset - header.snapshots_offset + 1);
  }
  for (const Snapshot& snapshot : snapshots) {
    const auto field = [&](const char* name, uint64_t at) {
      return fmt::format("{} (byte {}) of snapshot {}", name,
                         snapshot.entry_offset + at, snapshot.info.id);
    };
    CheckTable(file_name, file.size(), cluster_size, snapshot.l1_table_offset,
               field("l1_table_offset", 0), snapshot.l1_size,
               field("l1_size", 8), kMaxL1Bytes);
    add_clusters(snapshot.l1_table_offset, uint64_t{snapshot.l1_size} * 8);
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
  CheckAgainstEachOther(file_name);
}

void MetadataRegions::CheckAgainstEachOther(
    const std::string& file_name) const {
  for (size_t i = 1; i < regions_.size(); ++i) {
    if (regions_[i].begin >= regions_[i - 1].end) continue;
    throw CorruptImage(fmt::format(
        "{}: two of the image's own tables overlap at offset {}; try "
        "`qemu-img check -r all` on a copy, or --read-only",
        file_name, regions_[i].begin));
  }
}

size_t MetadataRegions::FirstBehind(uint64_t offset) const {
  const auto found =
      std::ranges::upper_bound(regions_, offset, {}, &Region::end);
  return static_cast<size_t>(found - regions_.begin());
}

void MetadataRegions::Drop(uint64_t begin, uint64_t length) {
  for (size_t i = FirstBehind(begin);
       i < regions_.size() && regions_[i].begin < begin + length; ++i) {
    dropped_[i] = true;
  }
}

bool MetadataRegions::Overlap(uint64_t begin, uint64_t length) const {
  for (size_t i = FirstBehind(begin);
       i < regions_.size() && regions_[i].begin < begin + length; ++i) {
    if (!dropped_[i]) return true;
  }
  return false;
}

void MetadataRegions::Check(uint64_t begin, uint64_t length,
                            const std::string& file_name,
                            const char* what) const {
  if (!Overlap(begin, length)) return;
  throw CorruptImage(fmt::format(
      "{}: {} at offset {} would overwrite the image's own tables; try "
      "`qemu-img check -r all` on a copy",
      file_name, what, begin));
}

}  // namespace pellucid::qcow2
