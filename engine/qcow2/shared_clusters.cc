#include "engine/qcow2/shared_clusters.h"

#include <algorithm>
#include <unordered_set>

#include "engine/qcow2/table_entries.h"
#include "engine/qcow2/table_ranges.h"
#include "engine/qcow2/table_words.h"

namespace pellucid::qcow2 {
namespace {

constexpr size_t kFirstCompaction = 1 << 20;

// The L1 tables of all states but `shown`, as far as they are in the file.
TableRanges OtherL1Tables(BlockDevice& file, const Header& header,
                          std::span<const Snapshot> snapshots,
                          const Snapshot* shown) {
  TableRanges tables;
  const uint64_t file_size = file.size() / 8 * 8;
  const auto add = [&](uint64_t offset, uint64_t entries) {
    if (offset % 8 != 0 || offset > file_size || entries > kMaxL1Bytes / 8) {
      return;
    }
    tables.Add(offset, std::min(offset + entries * 8, file_size));
  };
  if (shown != nullptr) add(header.l1_table_offset, header.l1_size);
  for (const Snapshot& snapshot : snapshots) {
    if (shown != nullptr && snapshot.entry_offset == shown->entry_offset) {
      continue;
    }
    add(snapshot.l1_table_offset, snapshot.l1_size);
  }
  return tables;
}

}  // namespace

SharedClusters::SharedClusters(BlockDevice& file, const Header& header,
                               std::span<const Snapshot> snapshots,
                               const Snapshot* shown)
    : cluster_size_(header.cluster_size()), compact_at_(kFirstCompaction) {
  std::unordered_set<uint64_t> tables;
  OtherL1Tables(file, header, snapshots, shown)
      .ForEach([&](uint64_t begin, uint64_t end, uint64_t) {
        ForEachStoredPiece(
            file, begin, end, [&](uint64_t, std::span<const uint64_t> words) {
              for (const uint64_t word : words) {
                const uint64_t table = word & kOffsetMask;
                if (table == 0 || table % cluster_size_ != 0 ||
                    table >= file.size() || !tables.insert(table).second) {
                  continue;
                }
                AddTable(file, header, table);
              }
            });
      });
  Compact();
}

void SharedClusters::AddTable(BlockDevice& file, const Header& header,
                              uint64_t table) {
  const size_t step = header.has(kExtendedL2) ? 2 : 1;
  ForEachStoredPiece(
      file, table, table + cluster_size_,
      [&](uint64_t, std::span<const uint64_t> words) {
        for (size_t i = 0; i < words.size(); i += step) {
          if ((words[i] & kCompressed) != 0) {
            places_.push_back(CompressedOffset(header.cluster_bits, words[i]));
          } else if (HasCluster(header, words[i])) {
            places_.push_back(words[i] & kOffsetMask);
          }
        }
      });
  if (places_.size() < compact_at_) return;
  Compact();
  compact_at_ = std::max(kFirstCompaction, 2 * places_.size());
}

void SharedClusters::Compact() {
  std::ranges::sort(places_);
  places_.erase(std::unique(places_.begin(), places_.end()), places_.end());
}

bool SharedClusters::Has(uint64_t place) const {
  return std::ranges::binary_search(places_, place);
}

bool SharedClusters::HasData(HostOffset host) const {
  return !places_.empty() && Has(host.value / cluster_size_ * cluster_size_);
}

uint64_t SharedClusters::AlikeBytes(HostOffset host, uint64_t length) const {
  if (places_.empty()) return length;
  const bool shared = HasData(host);
  uint64_t alike = cluster_size_ - host.value % cluster_size_;
  while (alike < length && HasData(host + alike) == shared) {
    alike += cluster_size_;
  }
  return std::min(alike, length);
}

}  // namespace pellucid::qcow2
