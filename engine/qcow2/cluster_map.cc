#include "engine/qcow2/cluster_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "engine/big_endian.h"
#include "engine/errors.h"

namespace pellucid::qcow2 {
namespace {

// Also of a small image: a cache as small as its tables would soon be full of
// changes. Memory is taken as it is used.
constexpr uint64_t kLeastL2CacheBytes = 2 << 20;
// What one call looks at, of either table: walks over layers of very different
// cluster sizes ask again and again, and must not pay for a whole table then.
constexpr uint64_t kMaxEntriesPerCall = 8192;

// Joins `piece` to the run in front of it if one mapping can say both.
bool Append(Mapping& run, const Mapping& piece) {
  if (run.length == 0) {
    run = piece;
    return true;
  }
  if (run.kind != piece.kind || run.kind == ClusterKind::kCompressed ||
      run.in_place != piece.in_place) {
    return false;
  }
  if (run.has_place != piece.has_place) return false;
  if ((run.kind == ClusterKind::kData || run.has_place) &&
      run.host + run.length != piece.host) {
    return false;
  }
  run.length += piece.length;
  return true;
}

}  // namespace

L1Table ReadL1Table(BlockDevice& file, uint64_t offset, uint32_t size) {
  L1Table table{.offset = {offset}, .entries = std::vector<uint64_t>(size)};
  if (size != 0)
    file.Read(offset, std::as_writable_bytes(std::span(table.entries)));
  for (uint64_t& entry : table.entries) entry = SwapBigEndian(entry);
  return table;
}

L1Place CheckL1Place(BlockDevice& file, const std::string& file_name,
                     const Header& header, const Snapshot& snapshot) {
  const auto field = [&](const char* name, uint64_t at) {
    return fmt::format("{} (byte {}) of snapshot {}", name,
                       snapshot.entry_offset + at, snapshot.info.id);
  };
  const std::string l1_size = field("l1_size", 8);
  CheckTable(file_name, file.size(), header.cluster_size(),
             snapshot.l1_table_offset, field("l1_table_offset", 0),
             snapshot.l1_size, l1_size, kMaxL1Bytes);
  const uint64_t size = snapshot.info.virtual_size;
  const uint64_t needed =
      size / header.l2_coverage() + (size % header.l2_coverage() != 0);
  if (snapshot.l1_size < needed) {
    throw CorruptImage(
        fmt::format("{}: {} is {} but its disk of {} bytes needs {} entries",
                    file_name, l1_size, snapshot.l1_size, size, needed));
  }
  return {.offset = {snapshot.l1_table_offset}, .size = snapshot.l1_size};
}

L1Table ReadL1TableOf(BlockDevice& file, const std::string& file_name,
                      const Header& header, const Snapshot* snapshot) {
  if (snapshot == nullptr) {
    return ReadL1Table(file, header.l1_table_offset, header.l1_size);
  }
  const L1Place place = CheckL1Place(file, file_name, header, *snapshot);
  return ReadL1Table(file, place.offset.value, place.size);
}

ClusterMap::ClusterMap(BlockDevice& file, std::string file_name,
                       const Header& header, L1Place l1,
                       std::unique_ptr<L2Cache> own_cache, L2Cache* cache)
    : file_(file),
      file_name_(std::move(file_name)),
      version_(header.version),
      cluster_bits_(header.cluster_bits),
      cluster_size_(header.cluster_size()),
      l2_coverage_(header.l2_coverage()),
      extended_l2_(header.has(kExtendedL2)),
      entry_words_(extended_l2_ ? 2 : 1),
      external_data_(header.has(kExternalDataFile)),
      l1_offset_(l1.offset),
      l1_size_(l1.size),
      l1_(own_cache ? l1.size : 0),
      own_cache_(std::move(own_cache)),
      cache_(own_cache_ ? *own_cache_ : *cache) {}

ClusterMap::ClusterMap(BlockDevice& file, std::string file_name,
                       const Header& header, L1Table l1,
                       uint64_t l2_cache_bytes)
    : ClusterMap(
          file, std::move(file_name), header,
          {.offset = l1.offset,
           .size = static_cast<uint32_t>(l1.entries.size())},
          std::make_unique<L2Cache>(
              file, header.cluster_size(),
              std::min(l2_cache_bytes,
                       std::max(l1.entries.size() * header.cluster_size(),
                                kLeastL2CacheBytes))),
          nullptr) {
  std::ranges::copy(l1.entries, l1_.begin());
}

ClusterMap::ClusterMap(BlockDevice& file, std::string file_name,
                       const Header& header, L1Place l1, L2Cache& cache)
    : ClusterMap(file, std::move(file_name), header, l1, nullptr, &cache) {}

uint64_t ClusterMap::L1Entry(uint64_t index) const {
  if (own_cache_) return l1_.at(index).load();
  uint64_t entry = 0;
  cache_.Read(L1EntryOffset(index), {&entry, 1});
  return entry;
}

uint64_t ClusterMap::L2TableOf(uint64_t l1_index) const {
  const uint64_t entry = L1Entry(l1_index);
  const uint64_t table = entry & kOffsetMask;
  if (table == 0) return 0;
  const auto corrupt = [&](const std::string& why) {
    throw CorruptImage(fmt::format("{}: L1 entry {} (byte {}) is {:#x}: {}",
                                   file_name_, l1_index,
                                   L1EntryOffset(l1_index).value, entry, why));
  };
  if (table % cluster_size_ != 0) {
    corrupt(
        fmt::format("its L2 table is not at a multiple of the {}-byte "
                    "cluster",
                    cluster_size_));
  }
  const uint64_t file_size = file_.size();
  if (table > file_size || cluster_size_ > file_size - table) {
    corrupt(
        fmt::format("its L2 table ends behind the {}-byte file", file_size));
  }
  return table;
}

Mapping ClusterMap::Map(GuestOffset at, uint64_t max_length) {
  Mapping run;
  for (uint64_t looked_at = 0;
       run.length < max_length && looked_at < kMaxEntriesPerCall; ++looked_at) {
    const uint64_t here = at.value + run.length;
    const uint64_t in_table = here % l2_coverage_;
    const uint64_t length =
        std::min(max_length - run.length, l2_coverage_ - in_table);
    const uint64_t l1_index = here / l2_coverage_;
    const bool own_table = (L1Entry(l1_index) & kCopied) != 0;
    const uint64_t table = L2TableOf(l1_index);
    if (table == 0) {
      if (!Append(run, {.kind = ClusterKind::kUnallocated,
                        .length = length,
                        .host = {},
                        .compressed_size = 0})) {
        break;
      }
      continue;
    }
    // One table at a time bounds the work of a call.
    if (run.length != 0) break;
    if (!MapWithinTable({table}, own_table, {here}, length, run)) break;
  }
  return run;
}

bool ClusterMap::MapWithinTable(HostOffset table, bool own_table,
                                GuestOffset at, uint64_t length, Mapping& run) {
  std::array<uint64_t, 64> words;
  uint64_t index = at.value % l2_coverage_ / cluster_size_;
  uint64_t in_cluster = at.value % cluster_size_;
  GuestOffset cluster = {at.value - in_cluster};
  length = std::min(length, kMaxEntriesPerCall * cluster_size_ - in_cluster);
  while (length != 0) {
    const HostOffset first = table + index * entry_words_ * 8;
    const uint64_t wanted = (in_cluster + length - 1) / cluster_size_ + 1;
    const uint64_t in_slice =
        (cache_.slice_bytes() - first.value % cache_.slice_bytes()) / 8;
    const uint64_t count =
        std::min({wanted * entry_words_, in_slice, words.size()}) /
        entry_words_;
    cache_.Read(first, std::span(words).first(count * entry_words_));
    for (uint64_t i = 0; i < count; ++i) {
      const Entry entry = {
          .at = first + i * entry_words_ * 8,
          .cluster = cluster,
          .descriptor = words[i * entry_words_],
          .subclusters = extended_l2_ ? words[i * entry_words_ + 1] : 0,
          .own_table = own_table};
      while (in_cluster < cluster_size_ && length != 0) {
        const Mapping piece = Decode(entry, in_cluster, length);
        if (!Append(run, piece)) return false;
        in_cluster += piece.length;
        length -= piece.length;
      }
      ++index;
      in_cluster = 0;
      cluster = cluster + cluster_size_;
    }
  }
  return true;
}

Mapping ClusterMap::Decode(const Entry& entry, uint64_t in_cluster,
                           uint64_t max_length) const {
  const uint64_t rest = std::min(max_length, cluster_size_ - in_cluster);
  if ((entry.descriptor & kCompressed) != 0) {
    return DecodeCompressed(entry, rest);
  }
  const uint64_t piece_size =
      extended_l2_ ? cluster_size_ / kSubclusters : cluster_size_;
  const uint64_t subcluster = in_cluster / piece_size;
  Mapping mapping;
  mapping.kind = KindOf(entry, subcluster);
  mapping.length = std::min(rest, piece_size - in_cluster % piece_size);
  const uint64_t host_cluster = HostClusterOf(entry);
  if (mapping.kind != ClusterKind::kData) {
    mapping.has_place =
        host_cluster != 0 || (extended_l2_ && HasHostCluster(entry));
    if (mapping.has_place) mapping.host = {host_cluster + in_cluster};
  } else {
    if (external_data_ && host_cluster != entry.cluster.value) {
      CorruptEntry(entry, fmt::format("in an external data file the cluster of "
                                      "guest offset {} can only be at that "
                                      "offset",
                                      entry.cluster.value));
    }
    mapping.host = {host_cluster + in_cluster};
    mapping.in_place = external_data_ ||
                       (entry.own_table && (entry.descriptor & kCopied) != 0);
  }
  return mapping;
}

ClusterKind ClusterMap::KindOf(const Entry& entry, uint64_t subcluster) const {
  const bool has_cluster = HasHostCluster(entry);
  if (extended_l2_) {
    const bool allocated = (entry.subclusters >> subcluster & 1) != 0;
    const bool zero =
        (entry.subclusters >> (kSubclusters + subcluster) & 1) != 0;
    if (allocated && zero) {
      CorruptEntry(entry, fmt::format("subcluster {} is both allocated and "
                                      "zero in the bitmap {:#x}",
                                      subcluster, entry.subclusters));
    }
    if (allocated && !has_cluster) {
      CorruptEntry(entry, fmt::format("subcluster {} is allocated in the "
                                      "bitmap {:#x} but there is no cluster",
                                      subcluster, entry.subclusters));
    }
    return zero        ? ClusterKind::kZero
           : allocated ? ClusterKind::kData
                       : ClusterKind::kUnallocated;
  }
  if ((entry.descriptor & kReadsAsZeros) != 0) {
    if (version_ < 3) {
      CorruptEntry(entry, "the zero flag (bit 0) does not exist in version 2");
    }
    return ClusterKind::kZero;
  }
  return has_cluster ? ClusterKind::kData : ClusterKind::kUnallocated;
}

bool ClusterMap::HasHostCluster(const Entry& entry) const {
  // With an external data file 0 is a place for data; the copied flag tells.
  return HostClusterOf(entry) != 0 ||
         (external_data_ && (entry.descriptor & kCopied) != 0);
}

uint64_t ClusterMap::HostClusterOf(const Entry& entry) const {
  const uint64_t offset = entry.descriptor & kOffsetMask;
  if (offset % cluster_size_ != 0) {
    CorruptEntry(entry, fmt::format("its cluster is not at a multiple of the "
                                    "{}-byte cluster",
                                    cluster_size_));
  }
  return offset;
}

Mapping ClusterMap::DecodeCompressed(const Entry& entry,
                                     uint64_t length) const {
  if (external_data_) {
    CorruptEntry(entry,
                 "a compressed cluster cannot be in an external data "
                 "file");
  }
  const uint64_t offset = CompressedOffset(cluster_bits_, entry.descriptor);
  if (offset >= file_.size()) {
    CorruptEntry(entry, fmt::format("its compressed data begins behind the "
                                    "{}-byte file",
                                    file_.size()));
  }
  return {.kind = ClusterKind::kCompressed,
          .length = length,
          .host = {offset},
          .compressed_size = CompressedBytes(cluster_bits_, entry.descriptor),
          .in_place = false};
}

L2Entry ClusterMap::ReadEntry(HostOffset table, uint64_t index) {
  std::array<uint64_t, 2> words{};
  cache_.Read(EntryOffset(table, index), std::span(words).first(entry_words_));
  return {.descriptor = words[0], .subclusters = words[1]};
}

void ClusterMap::ChangeEntry(HostOffset table, uint64_t index,
                             const L2Entry& entry) {
  const std::array words = {entry.descriptor, entry.subclusters};
  cache_.Change(EntryOffset(table, index),
                std::span(words).first(entry_words_));
}

HostOffset ClusterMap::HostCluster(HostOffset table, uint64_t index,
                                   const L2Entry& entry) const {
  return {HostClusterOf({.at = EntryOffset(table, index),
                         .cluster = {},
                         .descriptor = entry.descriptor,
                         .subclusters = entry.subclusters,
                         .own_table = true})};
}

Mapping ClusterMap::CompressedRange(HostOffset table, uint64_t index,
                                    const L2Entry& entry) const {
  return DecodeCompressed({.at = EntryOffset(table, index),
                           .cluster = {},
                           .descriptor = entry.descriptor,
                           .subclusters = entry.subclusters,
                           .own_table = true},
                          cluster_size_);
}

void ClusterMap::CorruptEntry(const Entry& entry,
                              const std::string& why) const {
  throw CorruptImage(fmt::format("{}: L2 entry (byte {}) is {:#x}: {}",
                                 file_name_, entry.at.value, entry.descriptor,
                                 why));
}

}  // namespace pellucid::qcow2
