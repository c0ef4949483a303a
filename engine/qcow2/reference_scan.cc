#include "engine/qcow2/reference_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/bitmap_directory.h"
#include "engine/qcow2/header_fields.h"
#include "engine/qcow2/table_entries.h"
#include "engine/qcow2/table_ranges.h"
#include "engine/qcow2/table_words.h"

namespace pellucid::qcow2 {
namespace {

constexpr uint64_t kMaxBitmapTableEntries = 0x800'0000;
// Of all L1 tables together, and of all bitmap tables: what is larger is a
// sparse file that only says so.
constexpr uint64_t kMaxTableBytes = 1 << 30;

class Scanner {
 public:
  Scanner(BlockDevice& file, const std::string& file_name, const Header& header,
          CountRefcounts count_refcounts, const WorkWatch& watch)
      : file_(file),
        file_name_(file_name),
        header_(header),
        count_refcounts_(count_refcounts == CountRefcounts::kYes),
        watch_(watch),
        file_size_(file.size()),
        cluster_size_(header.cluster_size()),
        limit_(header.refcount_order >= 5
                   ? UINT32_MAX
                   : (uint64_t{1} << (1U << header.refcount_order)) - 1),
        scan_{.counts = ClusterCounts(file_size_ / cluster_size_ +
                                          (file_size_ % cluster_size_ != 0) + 1,
                                      file_name),
              .corruptions = {},
              .hazards = {},
              .mapping = {},
              .compressed_entries = 0,
              .first_compressed = 0} {}

  ReferenceScan Scan(std::span<const Snapshot> snapshots) && {
    AddMetadata(0, 0, cluster_size_, "the header");
    AddL1Tables(snapshots);
    ScanL2Tables();
    AddSnapshotTable(snapshots);
    if (header_.crypto_header) {
      AddMetadata(0, header_.crypto_header->offset,
                  header_.crypto_header->length, "the encryption header");
    }
    AddBitmaps();
    if (count_refcounts_) AddRefcounts();
    LookForSharedMetadata();
    return std::move(scan_);
  }

 private:
  // How L1 entries refer to an L2 table.
  struct Uses {
    uint64_t times = 0;
    uint64_t active = 0;  // Of these, entries of the active L1 table.
  };

  // `place` gives a name to what stands at byte `at` of the file.
  template <typename Place>
  void Corrupt(uint64_t at, Place&& place, const std::string& why,
               uint64_t times = 1) {
    scan_.corruptions.Add(
        kind_, at,
        [&] { return fmt::format("{}: {}: {}", file_name_, place(), why); },
        times);
  }

  uint64_t RoundedUp(uint64_t offset) const {
    return (offset + cluster_size_ - 1) / cluster_size_ * cluster_size_;
  }

  // Counts `times` references to each cluster that the bytes touch. False if
  // they end a whole cluster or more behind the end of the file.
  template <typename Place>
  bool AddBytes(uint64_t at, uint64_t offset, uint64_t length, uint64_t times,
                Place&& place) {
    if (length == 0) return true;
    if (offset > file_size_ + cluster_size_ ||
        length >= file_size_ + cluster_size_ - offset) {
      Corrupt(
          at, place,
          fmt::format("refers to {} bytes at {:#x}, behind the {}-byte file",
                      length, offset, file_size_),
          times);
      return false;
    }
    const uint64_t last = (offset + length - 1) / cluster_size_;
    for (uint64_t cluster = offset / cluster_size_; cluster <= last;
         ++cluster) {
      const uint64_t lost = scan_.counts.Add(cluster, times, limit_);
      if (lost == 0) continue;
      Corrupt(
          at, place,
          fmt::format("the cluster at {:#x} has more references than a "
                      "refcount of {} bits can count",
                      cluster * cluster_size_, 1U << header_.refcount_order),
          lost);
    }
    return true;
  }

  // `at` is where the file says so.
  bool AddMetadata(uint64_t at, uint64_t offset, uint64_t length,
                   const std::string& what) {
    if (!AddBytes(at, offset, length, 1, [&] { return what; })) return false;
    metadata_.Add(offset / cluster_size_,
                  RoundedUp(offset + length) / cluster_size_);
    return true;
  }

  void AddL1Tables(std::span<const Snapshot> snapshots) {
    AddL1Table(kL1TableOffset.byte, header_.l1_table_offset, header_.l1_size,
               [] { return std::string("the active L1 table"); });
    for (const Snapshot& snapshot : snapshots) {
      AddL1Table(snapshot.entry_offset, snapshot.l1_table_offset,
                 snapshot.l1_size, [&] {
                   return fmt::format(
                       "l1_table_offset (byte {}) of snapshot {}",
                       snapshot.entry_offset, snapshot.info.id);
                 });
    }
    CheckTotal(l1_entries_, "L1");
    // Whole clusters for the references to the tables, entries for theirs.
    l1_clusters_.ForEach([&](uint64_t begin, uint64_t end, uint64_t times) {
      AddBytes(begin * cluster_size_, begin * cluster_size_,
               (end - begin) * cluster_size_, times,
               [&] { return std::string("an L1 table"); });
    });
    l1_entries_.ForEach([&](uint64_t begin, uint64_t end, uint64_t times) {
      ForEachStoredPiece(file_, begin, end,
                         [&](uint64_t byte, std::span<const uint64_t> words) {
                           for (const uint64_t word : words) {
                             if (word != 0) AddL1Entry(byte, word, times);
                             byte += 8;
                           }
                         });
    });
  }

  template <typename Place>
  void AddL1Table(uint64_t at, uint64_t offset, uint64_t size, Place&& place) {
    if (size == 0) return;
    if (offset % cluster_size_ != 0) {
      return Corrupt(at, place,
                     fmt::format("{:#x} is not a multiple of the {}-byte "
                                 "cluster",
                                 offset, cluster_size_));
    }
    if (size > kMaxL1Bytes / 8) {
      return Corrupt(at, place,
                     fmt::format("{} entries are more than {} MiB", size,
                                 kMaxL1Bytes >> 20));
    }
    if (offset >= file_size_ ||
        size * 8 >= file_size_ - offset + cluster_size_) {
      return Corrupt(at, place,
                     fmt::format("a table of {} bytes at {:#x} ends "
                                 "behind the {}-byte file",
                                 size * 8, offset, file_size_));
    }
    const uint64_t end = offset + size * 8;
    if (end > file_size_) HazardCutOff(at, place, offset);
    l1_clusters_.Add(offset / cluster_size_, RoundedUp(end) / cluster_size_);
    l1_entries_.Add(offset, std::min(end, file_size_ / 8 * 8));
  }

  void CheckTotal(TableRanges& tables, const char* what) const {
    uint64_t total = 0;
    tables.ForEach(
        [&](uint64_t begin, uint64_t end, uint64_t) { total += end - begin; });
    if (total <= kMaxTableBytes) return;
    throw Unsupported(fmt::format(
        "{}: has {} MiB of {} tables, above the {} MiB that are supported for "
        "a look at all references",
        file_name_, total >> 20, what, kMaxTableBytes >> 20));
  }

  void AddL1Entry(uint64_t byte, uint64_t word, uint64_t times) {
    const auto place = [&] {
      return fmt::format("L1 entry (byte {}) is {:#x}", byte, word);
    };
    if ((word & kL1Reserved) != 0) {
      Corrupt(byte, place, "reserved bits are set", times);
    }
    const uint64_t table = word & kOffsetMask;
    if (table == 0) return Corrupt(byte, place, "flags without a table", times);
    const bool inside = AddBytes(byte, table, cluster_size_, times, place);
    if (table % cluster_size_ != 0) {
      return Corrupt(byte, place,
                     fmt::format("its table is not at a multiple of the "
                                 "{}-byte cluster",
                                 cluster_size_),
                     times);
    }
    if (!inside) return;
    Uses& uses = l2_tables_[table];
    const bool is_new = uses.times == 0;
    uses.times += times;
    if (IsActiveL1Entry(byte)) ++uses.active;
    if (is_new && file_size_ - table < cluster_size_) {
      HazardCutOff(byte, place, table);
    }
  }

  bool IsActiveL1Entry(uint64_t byte) const {
    return byte >= header_.l1_table_offset &&
           byte - header_.l1_table_offset < uint64_t{8} * header_.l1_size;
  }

  void ScanL2Tables() {
    uint64_t done = 0;
    for (const auto& [offset, uses] : l2_tables_) {
      ScanL2Table(offset, uses);
      if (watch_) watch_(++done, l2_tables_.size());
    }
  }

  void ScanL2Table(uint64_t table, const Uses& uses) {
    l2_uses_ = uses;
    next_contiguous_ = 0;
    const bool extended = header_.has(kExtendedL2);
    ForEachStoredPiece(
        file_, table, table + cluster_size_,
        [&](uint64_t byte, std::span<const uint64_t> words) {
          for (; !words.empty(); words = words.subspan(extended ? 2 : 1)) {
            const uint64_t bitmap = extended && words.size() > 1 ? words[1] : 0;
            if (words[0] != 0 || bitmap != 0) {
              AddL2Entry(byte, words[0], bitmap, uses.times);
            }
            if (extended && words.size() < 2) break;
            byte += extended ? 16 : 8;
          }
        });
  }

  void AddL2Entry(uint64_t byte, uint64_t word, uint64_t bitmap,
                  uint64_t times) {
    const auto place = [&] {
      return fmt::format("L2 entry (byte {}) is {:#x}", byte, word);
    };
    if ((word & kCompressed) != 0) {
      return AddCompressed(byte, word, bitmap, times, place);
    }
    const bool extended = header_.has(kExtendedL2);
    if ((word & kL2Reserved) != 0) {
      Corrupt(byte, place, "reserved bits are set", times);
    }
    if ((word & kReadsAsZeros) != 0 && header_.version < 3) {
      scan_.hazards.Add(FindingKind::kForeignBit, byte, [&] {
        return fmt::format(
            "{}: {}: the zero flag (bit 0) does not exist in version 2",
            file_name_, place());
      });
    }
    const auto allocated = static_cast<uint32_t>(bitmap);
    const auto zero = static_cast<uint32_t>(bitmap >> 32);
    if (!HasCluster(header_, word)) {
      if (extended && allocated != 0) {
        Corrupt(byte, place,
                "subclusters are allocated but there is no cluster", times);
      }
      return;
    }
    if (extended && (allocated & zero) != 0) {
      return Corrupt(byte, place,
                     fmt::format("subclusters are both allocated and zero in "
                                 "the bitmap {:#x}",
                                 bitmap),
                     times);
    }
    const uint64_t cluster = word & kOffsetMask;
    if (cluster % cluster_size_ != 0) {
      Corrupt(byte, place,
              fmt::format("its cluster is not at a multiple of the {}-byte "
                          "cluster",
                          cluster_size_),
              times);
    }
    NoteMapped(cluster);
    if (!header_.has(kExternalDataFile)) {
      AddBytes(byte, cluster, cluster_size_, times, place);
    }
  }

  // For the statistics: a cluster of the active state has a place of its own.
  void NoteMapped(uint64_t cluster) {
    if (l2_uses_.active == 0) return;
    scan_.mapping.allocated += l2_uses_.active;
    if (next_contiguous_ != 0 && cluster != next_contiguous_) {
      scan_.mapping.fragmented += l2_uses_.active;
    }
    next_contiguous_ = cluster + cluster_size_;
  }

  // Compressed clusters count as fragmented: several share a place.
  void NoteCompressed(uint64_t byte) {
    if (scan_.compressed_entries++ == 0) scan_.first_compressed = byte;
    scan_.mapping.allocated += l2_uses_.active;
    scan_.mapping.fragmented += l2_uses_.active;
    scan_.mapping.compressed += l2_uses_.active;
  }

  template <typename Place>
  void AddCompressed(uint64_t byte, uint64_t word, uint64_t bitmap,
                     uint64_t times, Place&& place) {
    if ((word & kCopied) != 0) {
      Corrupt(byte, place, "a compressed cluster has the copied flag", times);
    }
    if (header_.has(kExternalDataFile)) {
      return Corrupt(byte, place,
                     "a compressed cluster cannot be in an external data file",
                     times);
    }
    if (bitmap != 0) {
      return Corrupt(byte, place,
                     fmt::format("a compressed cluster has the subcluster "
                                 "bitmap {:#x}",
                                 bitmap),
                     times);
    }
    AddBytes(byte, CompressedOffset(header_.cluster_bits, word),
             CompressedBytes(header_.cluster_bits, word), times, place);
    NoteCompressed(byte);
  }

  // How long the last entry is stands in it; ReadSnapshots() has read it. The
  // caller may know of a snapshot that is not in a table yet.
  void AddSnapshotTable(std::span<const Snapshot> snapshots) {
    if (snapshots.empty() || header_.nb_snapshots == 0) return;
    const uint64_t last = snapshots.back().entry_offset;
    std::array<std::byte, 40> fixed;
    ReadZeroPadded(file_, last, fixed);
    const uint64_t length = fixed.size() + LoadBigEndian<uint16_t>(fixed, 12) +
                            LoadBigEndian<uint16_t>(fixed, 14) +
                            LoadBigEndian<uint32_t>(fixed, 36);
    AddMetadata(kSnapshotsOffset.byte, header_.snapshots_offset,
                (last + length + 7) / 8 * 8 - header_.snapshots_offset,
                "the snapshot table");
  }

  void AddBitmaps() {
    BitmapDirectory directory;
    try {
      directory = ReadBitmapDirectory(file_, file_name_, header_);
    } catch (const CorruptImage& error) {
      scan_.corruptions.Add(FindingKind::kEntry, 0,
                            [&] { return std::string(error.what()); });
      return;
    }
    AddMetadata(0, directory.offset, directory.size, "the bitmap directory");
    TableRanges clusters;
    TableRanges entries;
    for (const BitmapDirectory::Entry& bitmap : directory.entries) {
      const auto place = [&] {
        return fmt::format("bitmap_table_offset (byte {})",
                           bitmap.entry_offset);
      };
      const uint64_t offset = bitmap.bitmap_table_offset;
      const uint64_t length = uint64_t{8} * bitmap.bitmap_table_size;
      if (offset % cluster_size_ != 0 || offset == 0 || length == 0 ||
          bitmap.bitmap_table_size > kMaxBitmapTableEntries ||
          offset >= file_size_ || length > file_size_ - offset) {
        Corrupt(bitmap.entry_offset, place,
                fmt::format("a table of {} bytes cannot be at {:#x}", length,
                            offset));
        continue;
      }
      const uint64_t end = RoundedUp(offset + length) / cluster_size_;
      clusters.Add(offset / cluster_size_, end);
      metadata_.Add(offset / cluster_size_, end);
      entries.Add(offset, offset + length);
    }
    CheckTotal(entries, "bitmap");
    clusters.ForEach([&](uint64_t begin, uint64_t end, uint64_t times) {
      AddBytes(begin * cluster_size_, begin * cluster_size_,
               (end - begin) * cluster_size_, times,
               [] { return std::string("a bitmap table"); });
    });
    entries.ForEach([&](uint64_t begin, uint64_t end, uint64_t times) {
      ForEachStoredPiece(file_, begin, end,
                         [&](uint64_t byte, std::span<const uint64_t> words) {
                           for (const uint64_t word : words) {
                             if (word > 1) AddBitmapCluster(byte, word, times);
                             byte += 8;
                           }
                         });
    });
  }

  void AddBitmapCluster(uint64_t byte, uint64_t word, uint64_t times) {
    const auto place = [&] {
      return fmt::format("bitmap table entry (byte {}) is {:#x}", byte, word);
    };
    const uint64_t cluster = word & kOffsetMask;
    if ((word & kBitmapTableReserved) != 0 || (word & 1) != 0 ||
        cluster % cluster_size_ != 0) {
      return Corrupt(byte, place, "is not the place of a cluster", times);
    }
    AddBytes(byte, cluster, cluster_size_, times, place);
  }

  void AddRefcounts() {
    kind_ = FindingKind::kRefcountTable;
    const uint64_t begin = header_.refcount_table_offset;
    const uint64_t length = header_.refcount_table_clusters * cluster_size_;
    AddMetadata(kRefcountTableOffset.byte, begin, length, "the refcount table");
    ForEachStoredPiece(file_, begin,
                       std::min(begin + length, file_size_ / 8 * 8),
                       [&](uint64_t byte, std::span<const uint64_t> words) {
                         for (const uint64_t word : words) {
                           if (word != 0) AddRefcountBlock(byte, word);
                           byte += 8;
                         }
                       });
  }

  void AddRefcountBlock(uint64_t byte, uint64_t word) {
    const auto place = [&] {
      return fmt::format("refcount table entry (byte {}) is {:#x}", byte, word);
    };
    if ((word & kRefcountTableReserved) != 0) {
      Corrupt(byte, place, "reserved bits are set");
    }
    const uint64_t block = word & ~kRefcountTableReserved;
    if (block % cluster_size_ != 0) {
      return Corrupt(byte, place,
                     fmt::format("its block is not at a multiple of the "
                                 "{}-byte cluster",
                                 cluster_size_));
    }
    if (block >= file_size_) {
      return Corrupt(
          byte, place,
          fmt::format("its block is behind the {}-byte file", file_size_));
    }
    if (block == 0 || !AddBytes(byte, block, cluster_size_, 1, place)) return;
    if (file_size_ - block < cluster_size_) HazardCutOff(byte, place, block);
    if (scan_.counts[block / cluster_size_] != 1) {
      Corrupt(byte, place, "its block is used for something else too");
    }
  }

  template <typename Place>
  void HazardCutOff(uint64_t at, Place&& place, uint64_t table) {
    scan_.hazards.Add(FindingKind::kCutOff, at, [&] {
      return fmt::format(
          "{}: {}: the table at {:#x} is cut off by the end of "
          "the {}-byte file",
          file_name_, place(), table, file_size_);
    });
  }

  // Whoever writes to one of the two uses destroys the other, although the
  // refcounts may well be right. Refcount blocks were looked at.
  void LookForSharedMetadata() {
    const auto expect = [&](uint64_t cluster, uint64_t uses, const char* what) {
      const uint64_t count = scan_.counts[cluster];
      if (count <= uses) return;
      scan_.hazards.Add(FindingKind::kOverlap, cluster * cluster_size_, [&] {
        return fmt::format(
            "{}: {} at {:#x} is referred to {} times, {} of "
            "them as such",
            file_name_, what, cluster * cluster_size_, count, uses);
      });
    };
    for (const auto& [table, uses] : l2_tables_) {
      expect(table / cluster_size_, uses.times, "the L2 table");
    }
    const auto expect_once = [&](uint64_t begin, uint64_t end, uint64_t) {
      for (; begin < end; ++begin) expect(begin, 1, "metadata");
    };
    l1_clusters_.ForEach(expect_once);
    metadata_.ForEach(expect_once);
  }

  BlockDevice& file_;
  const std::string& file_name_;
  const Header& header_;
  const bool count_refcounts_;
  const WorkWatch& watch_;
  const uint64_t file_size_;
  const uint64_t cluster_size_;
  const uint64_t limit_;  // Largest refcount.
  ReferenceScan scan_;
  FindingKind kind_ = FindingKind::kEntry;  // Of the corruptions to be found.
  Uses l2_uses_;                            // Of the L2 table being read.
  uint64_t next_contiguous_ = 0;            // Behind its last cluster.
  TableRanges l1_clusters_;                 // In clusters.
  TableRanges l1_entries_;                  // In bytes.
  TableRanges metadata_;  // In clusters: what has to be referred to once.
  std::unordered_map<uint64_t, Uses> l2_tables_;  // By offset.
};

}  // namespace

ReferenceScan ScanReferences(BlockDevice& file, const std::string& file_name,
                             const Header& header,
                             std::span<const Snapshot> snapshots,
                             CountRefcounts count_refcounts,
                             const WorkWatch& watch) {
  return Scanner(file, file_name, header, count_refcounts, watch)
      .Scan(snapshots);
}

}  // namespace pellucid::qcow2
