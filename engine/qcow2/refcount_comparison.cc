#include "engine/qcow2/refcount_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <unordered_map>

#include "engine/big_endian.h"
#include "engine/qcow2/table_entries.h"
#include "engine/qcow2/table_words.h"

namespace pellucid::qcow2 {
namespace {

// Refcount `index` of a piece of a refcount block. Those narrower than a byte
// begin at its least significant bit.
uint64_t RefcountAt(std::span<const std::byte> piece, uint64_t index,
                    unsigned order) {
  switch (order) {
    case 3:
      return std::to_integer<uint64_t>(piece[index]);
    case 4:
      return LoadBigEndian<uint16_t>(piece, index * 2);
    case 5:
      return LoadBigEndian<uint32_t>(piece, index * 4);
    case 6:
      return LoadBigEndian<uint64_t>(piece, index * 8);
    default:
      break;
  }
  const unsigned width = 1U << order;
  const uint64_t bit = index * width;
  return std::to_integer<uint64_t>(piece[bit / 8]) >> (bit % 8) &
         ((1U << width) - 1);
}

class Comparer {
 public:
  Comparer(BlockDevice& file, const Header& header, const ClusterCounts& counts,
           const std::function<void(const RefcountDifference&)>& each,
           const WorkWatch& watch)
      : file_(file),
        header_(header),
        counts_(counts),
        each_(each),
        watch_(watch),
        file_clusters_(file.size() / header.cluster_size() +
                       (file.size() % header.cluster_size() != 0)),
        block_entries_((header.cluster_size() * 8) >> header.refcount_order) {}

  RefcountComparison Compare() && {
    const uint64_t table = header_.refcount_table_offset;
    const uint64_t end =
        table + header_.refcount_table_clusters * header_.cluster_size();
    uint64_t first = 0;  // Cluster of the next table entry.
    ForEachPiece(file_, table, end,
                 [&](uint64_t byte, std::span<const uint64_t> words) {
                   for (const uint64_t word : words) {
                     CompareBlock(first, word & ~kRefcountTableReserved);
                     first += block_entries_;
                     byte += 8;
                     if (watch_) watch_((byte - table) / 8, (end - table) / 8);
                   }
                 });
    if (first < counts_.size()) {
      CompareUnstored(first, counts_.size() - first);
    }
    return std::move(result_);
  }

 private:
  // A refcount block that has been read: which of its refcounts are not 0.
  struct Block {
    uint64_t stored = 0;
    uint64_t first = 0;
    uint64_t last = 0;

    void Add(uint64_t index, uint64_t refcount) {
      if (refcount == 0) return;
      if (stored++ == 0) first = index;
      last = index;
    }
  };

  void CompareBlock(uint64_t first, uint64_t block) {
    if (block == 0 || block >= file_.size()) {
      return CompareUnstored(first, block_entries_);
    }
    if (block % header_.cluster_size() != 0) {
      SkipUnreadable(first);
      return;
    }
    const auto known = blocks_.find(block);
    if (known == blocks_.end()) {
      if (IsHole(block)) return CompareUnstored(first, block_entries_);
    } else if (IsUncounted(first)) {
      return CompareUncounted(first, known->second);
    }
    Block seen;
    std::array<std::byte, 4096> buffer;
    const uint64_t piece_bytes =
        std::min<uint64_t>(buffer.size(), header_.cluster_size());
    const std::span piece = std::span(buffer).first(piece_bytes);
    const uint64_t piece_entries = (piece_bytes * 8) >> header_.refcount_order;
    for (uint64_t at = 0; at < header_.cluster_size(); at += piece_bytes) {
      ReadZeroPadded(file_, block + at, piece);
      for (uint64_t i = 0; i < piece_entries; ++i) {
        const uint64_t stored = RefcountAt(piece, i, header_.refcount_order);
        seen.Add(at / piece_bytes * piece_entries + i, stored);
        CompareCluster(first + i, stored);
      }
      first += piece_entries;
    }
    blocks_.emplace(block, seen);
  }

  bool IsHole(uint64_t block) {
    if (file_.size() - block < header_.cluster_size()) return false;
    const Extent extent = file_.ExtentAt(block, header_.cluster_size());
    return extent.is_hole && extent.length == header_.cluster_size();
  }

  // Is none of the clusters counted that a block is about, `first` the first of
  // them, and are they all in the file or all behind it?
  bool IsUncounted(uint64_t first) const {
    const uint64_t end = first + block_entries_;
    if (first < file_clusters_ && end > file_clusters_) return false;
    bool is_uncounted = true;
    counts_.ForEachCounted(first, end, [&](uint64_t) { is_uncounted = false; });
    return is_uncounted;
  }

  // What CompareCluster() would do for each cluster from `first` on, of which
  // none is counted. A hostile table can name one block for a million parts.
  void CompareUncounted(uint64_t first, const Block& block) {
    if (block.stored == 0) return;
    if (first >= file_clusters_) {
      result_.leaks_behind_end += block.stored;
    } else {
      result_.leaks += block.stored;
      result_.used_end = first + block.last + 1;
    }
    if (each_ && first + block.first < ClusterCounts::kMaxClusters) {
      each_({.cluster = first + block.first,
             .stored = 1,
             .counted = 0,
             .clusters = block.stored});
    }
  }

  void SkipUnreadable(uint64_t first) {
    if (first >= counts_.size()) return;
    const uint64_t end =
        first + std::min(block_entries_, counts_.size() - first);
    result_.unreadable += end - first;
    counts_.ForEachCounted(
        first, end, [&](uint64_t cluster) { result_.used_end = cluster + 1; });
  }

  void CompareUnstored(uint64_t first, uint64_t clusters) {
    if (first >= counts_.size()) return;
    const uint64_t end = first + std::min(clusters, counts_.size() - first);
    counts_.ForEachCounted(
        first, end, [&](uint64_t cluster) { CompareCluster(cluster, 0); });
  }

  void CompareCluster(uint64_t cluster, uint64_t stored) {
    const uint32_t counted = counts_[cluster];
    if (stored == 1 && cluster < counts_.size()) {
      result_.stored_once.Add(cluster);
    }
    const bool in_file = cluster < file_clusters_ || counted != 0;
    if (in_file && (stored != 0 || counted != 0)) {
      result_.used_end = cluster + 1;
    }
    if (stored == counted) return;
    if (stored < counted) {
      ++result_.corruptions;
    } else if (in_file) {
      ++result_.leaks;
    } else {
      ++result_.leaks_behind_end;
    }
    if (each_ && cluster < ClusterCounts::kMaxClusters) {
      each_({.cluster = cluster, .stored = stored, .counted = counted});
    }
  }

  BlockDevice& file_;
  const Header& header_;
  const ClusterCounts& counts_;
  const std::function<void(const RefcountDifference&)>& each_;
  const WorkWatch& watch_;
  const uint64_t file_clusters_;
  const uint64_t block_entries_;
  std::unordered_map<uint64_t, Block> blocks_;  // By offset.
  RefcountComparison result_;
};

}  // namespace

RefcountComparison CompareWithRefcounts(
    BlockDevice& file, const Header& header, const ClusterCounts& counts,
    const std::function<void(const RefcountDifference&)>& each,
    const WorkWatch& watch) {
  return Comparer(file, header, counts, each, watch).Compare();
}

void ForEachWrongCopiedFlag(
    BlockDevice& file, const Header& header,
    const std::function<bool(uint64_t cluster)>& is_counted_once,
    const std::function<void(const WrongCopiedFlag&)>& each,
    const WorkWatch& watch) {
  const auto check = [&](bool is_in_l1, uint64_t byte, uint64_t word,
                         bool expected, uint64_t times) {
    if (((word & kCopied) != 0) == expected) return;
    each({.is_in_l1 = is_in_l1, .byte = byte, .entry = word, .times = times});
  };
  const auto is_once_at = [&](uint64_t offset) {
    return is_counted_once(offset / header.cluster_size());
  };
  // Each table once, however many L1 entries share it.
  std::unordered_map<uint64_t, uint64_t> l2_tables;
  ForEachStoredPiece(
      file, header.l1_table_offset,
      header.l1_table_offset + uint64_t{8} * header.l1_size,
      [&](uint64_t byte, std::span<const uint64_t> words) {
        for (const uint64_t word : words) {
          const uint64_t table = word & kOffsetMask;
          if (table != 0) {
            check(/*is_in_l1=*/true, byte, word, is_once_at(table), 1);
            const bool readable =
                table % header.cluster_size() == 0 && table < file.size();
            if (readable) ++l2_tables[table];
          }
          byte += 8;
        }
      });
  const size_t step = header.l2_entry_size() / 8;
  const bool external = header.has(kExternalDataFile);
  uint64_t done = 0;
  for (const auto& [table, times] : l2_tables) {
    ForEachStoredPiece(
        file, table, table + header.cluster_size(),
        [&, times = times](uint64_t byte, std::span<const uint64_t> words) {
          for (size_t i = 0; i < words.size(); i += step) {
            const uint64_t word = words[i];
            if ((word & kCompressed) != 0 || !HasCluster(header, word)) {
              continue;
            }
            check(/*is_in_l1=*/false, byte + i * 8, word,
                  external || is_once_at(word & kOffsetMask), times);
          }
        });
    if (watch) watch(++done, l2_tables.size());
  }
}

Findings CheckCopiedFlags(BlockDevice& file, const std::string& file_name,
                          const Header& header, const ClusterSet& stored_once,
                          const WorkWatch& watch) {
  Findings findings;
  ForEachWrongCopiedFlag(
      file, header, [&](uint64_t cluster) { return stored_once.Has(cluster); },
      [&](const WrongCopiedFlag& wrong) {
        const bool is_set = (wrong.entry & kCopied) != 0;
        findings.Add(
            FindingKind::kCopiedFlag, wrong.byte,
            [&] {
              return fmt::format(
                  "{}: {} entry (byte {}) is {:#x}: the copied flag (bit 63) "
                  "is {}, but the refcount is {}1",
                  file_name, wrong.is_in_l1 ? "L1" : "L2", wrong.byte,
                  wrong.entry, is_set ? "set" : "clear", is_set ? "not " : "");
            },
            wrong.times);
      },
      watch);
  return findings;
}

}  // namespace pellucid::qcow2
