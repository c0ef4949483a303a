#include "engine/qcow2/table_switch.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/header_fields.h"
#include "engine/qcow2/refcount_comparison.h"
#include "engine/qcow2/refcount_rewrite.h"
#include "engine/qcow2/table_entries.h"

namespace pellucid::qcow2 {
namespace {

constexpr size_t kRecordBytes = 40;  // In front of extra data, id and name.

uint64_t DivideUp(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

}  // namespace

TableSwitch::TableSwitch(ResizableDevice& file, std::string file_name,
                         Trust trust)
    : file_(file),
      file_name_(std::move(file_name)),
      header_(ReadHeader(file, file_name_)),
      cluster_size_(header_.cluster_size()),
      snapshots_(ReadSnapshots(file, file_name_, header_)),
      rebuilds_refcounts_(trust == Trust::kReferences),
      count_refcounts_(rebuilds_refcounts_ ? CountRefcounts::kNo
                                           : CountRefcounts::kYes),
      before_(ScanReferences(file, file_name_, header_, snapshots_)) {
  CheckIsSound();
  ReadRecords();
}

void TableSwitch::CheckIsSound() {
  before_.counts.ForEachCounted(
      0, before_.counts.size(),
      [&](uint64_t cluster) { spare_.MarkUsed(cluster); });
  if (rebuilds_refcounts_) return CheckReferences();
  uint64_t too_low = 0;
  Findings flags;
  // Of a dirty image neither refcounts nor copied flags mean anything: both are
  // made anew from the references.
  if (!header_.has(kDirty)) {
    const RefcountComparison comparison =
        CompareWithRefcounts(file_, header_, before_.counts,
                             [&](const RefcountDifference& difference) {
                               // What is leaked may be in use by something that
                               // we do not know.
                               if (difference.is_leak()) {
                                 MarkLeaked(difference.cluster);
                               } else {
                                 ++too_low;
                               }
                             });
    too_low += comparison.unreadable;
    flags =
        CheckCopiedFlags(file_, file_name_, header_, comparison.stored_once);
  }
  if (before_.corruptions.count() + before_.hazards.count() + flags.count() +
          too_low ==
      0) {
    return;
  }
  std::string first = "refcounts are too low";
  for (const Findings* findings : std::initializer_list<const Findings*>{
           &before_.corruptions, &before_.hazards, &flags}) {
    if (findings->count() != 0) {
      first = findings->list().front().text;
      break;
    }
  }
  throw CorruptImage(fmt::format(
      "{}: its tables are damaged and therefore not changed ({}); try "
      "`pellucid check --repair all {}`",
      file_name_, first, file_name_));
}

void TableSwitch::MarkLeaked(uint64_t cluster) {
  spare_.MarkUsed(cluster);
  if (before_.counts[cluster] == 0) return;
  leaked_.Add(cluster);
}

bool TableSwitch::IsOwn(uint64_t offset,
                        const ReferenceScan& references) const {
  const uint64_t cluster = offset / cluster_size_;
  return references.counts[cluster] == 1 && !leaked_.Has(cluster);
}

// Whoever cannot say what an entry refers to does not know what is free.
void TableSwitch::CheckReferences() {
  const ReferenceScan scan = ScanReferences(file_, file_name_, header_,
                                            snapshots_, CountRefcounts::kNo);
  std::vector<Finding> faults = scan.corruptions.list();
  std::ranges::copy_if(
      scan.hazards.list(), std::back_inserter(faults),
      [](FindingKind kind) { return kind == FindingKind::kCutOff; },
      &Finding::kind);
  is_sound_ = scan.hazards.count() == 0;
  if (faults.empty()) return;
  throw CorruptImage(fmt::format(
      "{}: is not repaired, because what is in use cannot be told ({}); save "
      "what can be read with `pellucid export`",
      file_name_, faults.front().text));
}

void TableSwitch::ReadRecords() {
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    const uint64_t begin = snapshots_[i].entry_offset;
    std::array<std::byte, kRecordBytes> fixed;
    file_.Read(begin, fixed);
    const uint64_t length = fixed.size() + LoadBigEndian<uint16_t>(fixed, 12) +
                            LoadBigEndian<uint16_t>(fixed, 14) +
                            LoadBigEndian<uint32_t>(fixed, 36);
    std::vector<std::byte> record(length);
    file_.Read(begin, record);
    record.resize(DivideUp(length, 8) * 8);
    records_.push_back(std::move(record));
  }
}

NextTables TableSwitch::Present() const {
  NextTables next = {.header = header_,
                     .snapshots = snapshots_,
                     .records = records_,
                     .l1_size = header_.l1_size};
  next.header.autoclear_features &= kBitmapsConsistent | kRawExternalData;
  next.header.incompatible_features &= ~kDirty;
  return next;
}

uint32_t TableSwitch::L1EntriesFor(uint64_t size) const {
  const uint64_t entries = DivideUp(size, header_.l2_coverage());
  if (entries > kMaxL1Bytes / 8) {
    throw UsageError(fmt::format(
        "{}: {} bytes are too many for clusters of {}: they reach up to {} "
        "bytes; `qemu-img convert` makes an image with larger ones",
        file_name_, size, cluster_size_,
        kMaxL1Bytes / 8 * header_.l2_coverage()));
  }
  return static_cast<uint32_t>(entries);
}

void TableSwitch::SwitchTo(NextTables next) {
  const uint64_t old_file_size = file_.size();
  Header header;
  std::optional<RefcountRewrite> refcounts;
  try {
    header = WriteTables(next);
    const ReferenceScan after = ScanReferences(
        file_, file_name_, header, ReadSnapshots(file_, file_name_, header),
        count_refcounts_);
    refcounts.emplace(RefcountRewrite::Parts{.file = file_,
                                             .file_name = file_name_,
                                             .header = header_,
                                             .before = before_.counts,
                                             .after = after.counts,
                                             .spare = spare_,
                                             .rebuilds = rebuilds_refcounts_});
    refcounts->Write();
    header.refcount_table_offset = refcounts->table_offset();
    header.refcount_table_clusters = refcounts->table_clusters();
    file_.Flush();
  } catch (...) {
    // Nothing refers to what was written behind the end.
    if (file_.can_resize() && file_.size() > old_file_size) {
      file_.Resize(old_file_size);
    }
    throw;
  }
  WriteHeader(header);
  file_.Flush();
  // From here on what only the old state used is free.
  for (const RefcountRewrite::Clusters& run : refcounts->freed()) {
    const uint64_t begin = run.first * cluster_size_;
    if (begin >= file_.size()) break;
    file_.FreeSpace(begin,
                    std::min(run.count * cluster_size_, file_.size() - begin));
  }
  const uint64_t end = refcounts->used_end() * cluster_size_;
  if (file_.can_resize() && end < file_.size()) file_.Resize(end);
}

// Gives the header of the new state, its refcounts still the old ones.
Header TableSwitch::WriteTables(NextTables& next) {
  const ReferenceScan references = ScanReferences(
      file_, file_name_, next.header, next.snapshots, count_refcounts_);
  if (references.corruptions.count() != 0) {
    throw Unsupported(fmt::format(
        "{}: its refcounts of {} bits (header field refcount_order, byte 96) "
        "cannot count another snapshot ({}); `qemu-img convert -o "
        "refcount_bits=16` makes an image that can",
        file_name_, 1U << header_.refcount_order,
        references.corruptions.list().front().text));
  }
  Header header = next.header;
  std::vector<uint64_t> l1 = MakeL1(next, references);
  header.l1_size = static_cast<uint32_t>(l1.size());
  header.l1_table_offset = WriteL1(l1);
  if (next.has_new_snapshot) {
    l1.resize(next.snapshots.back().l1_size);
    for (uint64_t& entry : l1) entry &= kOffsetMask;
    const std::span record(next.records.back());
    StoreBigEndian(record, 0, WriteL1(l1));
    StoreBigEndian(record, 8, static_cast<uint32_t>(l1.size()));
  }
  std::vector<std::byte> table;
  for (const std::vector<std::byte>& record : next.records) {
    table.insert(table.end(), record.begin(), record.end());
  }
  header.nb_snapshots = static_cast<uint32_t>(next.records.size());
  header.snapshots_offset = WriteClusters(std::move(table));
  return header;
}

std::vector<uint64_t> TableSwitch::MakeL1(const NextTables& next,
                                          const ReferenceScan& references) {
  std::vector<uint64_t> l1 =
      ReadL1Table(file_, next.header.l1_table_offset, next.header.l1_size)
          .entries;
  for (uint64_t i = 0; i < l1.size(); ++i) {
    const uint64_t table = l1[i] & kOffsetMask;
    if (table == 0) continue;
    l1[i] = AdaptL2(table, i, next, references);
    const bool is_shared =
        next.has_new_snapshot && i < next.snapshots.back().l1_size;
    if (l1[i] == table ? IsOwn(table, references) : !is_shared) {
      l1[i] |= kCopied;
    }
  }
  l1.resize(std::max<size_t>(l1.size(), next.l1_size));
  return l1;
}

uint64_t TableSwitch::AdaptL2(uint64_t table, uint64_t index,
                              const NextTables& next,
                              const ReferenceScan& references) {
  // Has no entries: a hostile file can have terabytes of such tables.
  const Extent extent = file_.ExtentAt(table, cluster_size_);
  if (extent.is_hole && extent.length == cluster_size_) return table;
  std::vector<std::byte> content(cluster_size_);
  file_.Read(table, content);
  const std::span bytes(content);
  const size_t step = header_.l2_entry_size();
  const uint64_t first_guest = index * header_.l2_coverage();
  bool changed = false;
  for (size_t at = 0; at < content.size(); at += step) {
    const uint64_t old = LoadBigEndian<uint64_t>(bytes, at);
    const uint64_t old_bitmap =
        step == 16 ? LoadBigEndian<uint64_t>(bytes, at + 8) : 0;
    uint64_t entry = old;
    if (first_guest + at / step * cluster_size_ >= next.guest_end) {
      entry = 0;
      if (old_bitmap != 0) {
        StoreBigEndian(bytes, at + 8, uint64_t{0});
        changed = true;
      }
    } else if ((old & kCompressed) == 0 && !header_.has(kExternalDataFile) &&
               HasCluster(header_, old)) {
      const bool is_own = IsOwn(old & kOffsetMask, references);
      entry = is_own ? old | kCopied : old & ~kCopied;
    }
    if (entry == old) continue;
    StoreBigEndian(bytes, at, entry);
    changed = true;
  }
  return changed ? WriteClusters(std::move(content)) : table;
}

uint64_t TableSwitch::WriteL1(const std::vector<uint64_t>& entries) {
  std::vector<std::byte> content(entries.size() * 8);
  for (size_t i = 0; i < entries.size(); ++i) {
    StoreBigEndian(std::span(content), i * 8, entries[i]);
  }
  return WriteClusters(std::move(content));
}

// Gives the offset, 0 for nothing.
uint64_t TableSwitch::WriteClusters(std::vector<std::byte> content) {
  if (content.empty()) return 0;
  const uint64_t clusters = DivideUp(content.size(), cluster_size_);
  content.resize(clusters * cluster_size_);
  const uint64_t offset = spare_.Take(clusters) * cluster_size_;
  file_.Write(offset, content);
  return offset;
}

// Everything that names tables stands within one sector, next to each other.
void TableSwitch::WriteHeader(const Header& next) {
  std::array<std::byte, kAutoclearFeatures.byte + 8> start;
  const std::span bytes = std::span(start).first(
      header_.version >= 3 ? start.size() : kVersion2Length);
  file_.Read(0, bytes);
  StoreBigEndian(bytes, kSize.byte, next.size);
  StoreBigEndian(bytes, kL1Size.byte, next.l1_size);
  StoreBigEndian(bytes, kL1TableOffset.byte, next.l1_table_offset);
  StoreBigEndian(bytes, kRefcountTableOffset.byte, next.refcount_table_offset);
  StoreBigEndian(bytes, kRefcountTableClusters.byte,
                 next.refcount_table_clusters);
  StoreBigEndian(bytes, kNbSnapshots.byte, next.nb_snapshots);
  StoreBigEndian(bytes, kSnapshotsOffset.byte, next.snapshots_offset);
  if (header_.version >= 3) {
    StoreBigEndian(bytes, kIncompatibleFeatures.byte,
                   next.incompatible_features);
    StoreBigEndian(bytes, kAutoclearFeatures.byte, next.autoclear_features);
  }
  file_.Write(0, bytes);
}

}  // namespace pellucid::qcow2
