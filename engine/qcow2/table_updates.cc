#include "engine/qcow2/table_updates.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <span>
#include <utility>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/header_fields.h"

namespace pellucid::qcow2 {
namespace {

// What may gather in memory between two flushes.
constexpr uint64_t kMaxRefcountBytes = 4 << 20;
constexpr size_t kMaxFreed = 64 << 10;
// L2 slices that follow each other go down as one write of at most this.
constexpr size_t kMaxSliceWrite = 256 << 10;

}  // namespace

TableUpdates::TableUpdates(Parts parts)
    : file_name_(parts.file_name),
      file_(parts.file),
      data_file_(parts.data_file),
      cluster_size_(parts.header.cluster_size()),
      extended_l2_(parts.header.has(kExtendedL2)),
      incompatible_features_(parts.header.incompatible_features),
      autoclear_features_(parts.header.autoclear_features),
      version_(parts.header.version),
      wipes_freed_(parts.wipes_freed),
      regions_(parts.regions),
      map_(parts.map),
      compressed_(parts.compressed),
      users_(parts.users),
      repair_(std::move(parts.repair)),
      refcounts_(parts.file, parts.file_name, parts.header, parts.regions) {}

std::optional<HostOffset> TableUpdates::PinEntry(uint64_t l1_index,
                                                 uint64_t index) {
  HostOffset table = {map_.L2TableOf(l1_index)};
  if (table.value == 0 || (map_.L1Entry(l1_index) & kCopied) == 0) {
    table = MakeTable(l1_index, table);
  } else if (regions_.OverlapSnapshotTable(table.value, cluster_size_)) {
    throw CorruptImage(fmt::format(
        "{}: L1 entry {} (byte {}) has the copied flag, but a snapshot refers "
        "to its L2 table at offset {} too; try "
        "`pellucid check --repair all {}`",
        file_name_, l1_index, map_.L1EntryOffset(l1_index).value, table.value,
        file_name_));
  }
  if (!map_.l2_cache().Pin(map_.EntryOffset(table, index))) return std::nullopt;
  return table;
}

void TableUpdates::UnpinEntry(HostOffset table, uint64_t index) {
  map_.l2_cache().Unpin(map_.EntryOffset(table, index));
}

// The new table goes into the file at once: nothing refers to it yet.
HostOffset TableUpdates::MakeTable(uint64_t l1_index, HostOffset shared) {
  std::vector<std::byte> content(cluster_size_);
  if (shared.value != 0) {
    file_.Read(shared.value, content);
    // What two tables refer to is nobody's own.
    const size_t step = extended_l2_ ? 16 : 8;
    for (size_t at = 0; at < content.size(); at += step) {
      content[at] &= ~std::byte{kCopied >> 56};
    }
  }
  const HostClusters cluster = refcounts_.Allocate(1);
  const HostOffset table = {cluster.first * cluster_size_};
  try {
    file_.Write(table.value, content);
  } catch (...) {
    refcounts_.Release(cluster);
    throw;
  }
  regions_.Add(table.value, cluster_size_);
  map_.SetL1Entry(l1_index, table.value | kCopied);
  changed_l1_.insert(l1_index);
  if (shared.value != 0) Free(shared, cluster_size_, /*punch=*/false);
  return table;
}

void TableUpdates::Free(HostOffset host, uint64_t length, bool punch) {
  if (!freed_.empty()) {
    Freed& last = freed_.back();
    if (last.punch == punch && last.host + last.length == host &&
        host.value % cluster_size_ == 0) {
      last.length += length;
      return;
    }
  }
  freed_.push_back({.host = host, .length = length, .punch = punch});
}

bool TableUpdates::is_full() const {
  return refcounts_.changed_bytes() > kMaxRefcountBytes ||
         refcounts_.is_crowded() || freed_.size() > kMaxFreed ||
         map_.l2_cache().changed_slices() >
             map_.l2_cache().capacity_slices() / 2;
}

void TableUpdates::Prepare() {
  const std::lock_guard lock(commit_mutex_);
  if (prepared_) return;
  regions_.LoadSnapshotTables();
  if (repair_) {
    const std::lock_guard tables_lock(mutex_);
    repair_->Apply(file_, refcounts_, map_);
  }
  WriteFeatures();
  repair_.reset();
  prepared_.store(true, std::memory_order_release);
}

void TableUpdates::WriteFeatures() {
  // Version 2 has no such fields.
  if (version_ < 3) return;
  const uint64_t incompatible = incompatible_features_ & ~kDirty;
  // Bitmaps are not kept up to date here, and of other bits nobody knows what
  // would be.
  const uint64_t autoclear = autoclear_features_ & kRawExternalData;
  if (incompatible == incompatible_features_ &&
      autoclear == autoclear_features_) {
    return;
  }
  // The autoclear bits first: the dirty bit is all that asks for another
  // repair.
  std::array<std::byte, 8> field;
  StoreBigEndian(field, 0, autoclear);
  file_.Write(kAutoclearFeatures.byte, field);
  if (incompatible != incompatible_features_) {
    StoreBigEndian(field, 0, incompatible);
    file_.Write(kIncompatibleFeatures.byte, field);
  }
  file_.Flush();
}

void TableUpdates::Flush() {
  const uint64_t ticket = ++requested_;
  const std::lock_guard lock(commit_mutex_);
  if (covered_ >= ticket) return;
  const uint64_t covers = requested_;
  Commit();
  covered_ = covers;
}

void TableUpdates::Commit() {
  Batch batch = TakeBatch();
  try {
    WriteInOrder(batch);
  } catch (...) {
    PutBack(std::move(batch));
    throw;
  }
  {
    const std::lock_guard lock(mutex_);
    map_.l2_cache().ChangesWritten(batch.slices);
    refcounts_.ChangesWritten(batch.refcounts);
  }
  ApplyFreed(batch.freed);
}

// A picture of this moment: what is changed while it is being written must not
// reach the file with it, since its data need not be there.
TableUpdates::Batch TableUpdates::TakeBatch() {
  const std::lock_guard lock(mutex_);
  Batch batch;
  batch.refcounts = refcounts_.TakeChanges();
  batch.slices = map_.l2_cache().TakeChanges();
  batch.l1_indices = std::exchange(changed_l1_, {});
  for (const uint64_t index : batch.l1_indices) {
    batch.l1_entries.push_back(map_.L1Entry(index));
  }
  batch.freed = std::exchange(freed_, {});
  return batch;
}

void TableUpdates::PutBack(Batch batch) {
  const std::lock_guard lock(mutex_);
  refcounts_.ChangesNotWritten(batch.refcounts);
  map_.l2_cache().ChangesNotWritten(batch.slices);
  changed_l1_.merge(batch.l1_indices);
  freed_.insert(freed_.begin(), batch.freed.begin(), batch.freed.end());
}

void TableUpdates::WriteInOrder(const Batch& batch) {
  for (const Refcounts::Change& change : batch.refcounts) {
    file_.Write(change.offset, change.bytes);
  }
  FlushFiles();
  if (batch.slices.empty() && batch.l1_indices.empty()) return;
  if (!batch.slices.empty()) {
    WriteSlices(batch.slices);
    file_.Flush();
  }
  if (batch.l1_indices.empty()) return;
  std::array<std::byte, 8> bytes;
  size_t i = 0;
  for (const uint64_t index : batch.l1_indices) {
    StoreBigEndian(bytes, 0, batch.l1_entries[i++]);
    file_.Write(map_.L1EntryOffset(index).value, bytes);
  }
  file_.Flush();
}

void TableUpdates::WriteSlices(
    const std::vector<L2Cache::ChangedSlice>& slices) {
  std::vector<std::byte> run;
  uint64_t begin = 0;
  for (const L2Cache::ChangedSlice& slice : slices) {
    if (begin + run.size() != slice.offset.value ||
        run.size() + slice.bytes.size() > kMaxSliceWrite) {
      if (!run.empty()) file_.Write(begin, run);
      run.clear();
      begin = slice.offset.value;
    }
    run.insert(run.end(), slice.bytes.begin(), slice.bytes.end());
  }
  if (!run.empty()) file_.Write(begin, run);
}

void TableUpdates::FlushFiles() {
  if (data_file_ != nullptr) data_file_->Flush();
  file_.Flush();
}

// The file refers to none of it any more. Whoever has found it in the tables
// before has to finish; then its space is given back, while it still counts as
// used; and then it may be allocated.
void TableUpdates::ApplyFreed(const std::vector<Freed>& freed) {
  if (freed.empty()) return;
  users_.AwaitThoseInside();
  std::exception_ptr failure;
  for (const Freed& range : freed) {
    try {
      if (range.punch) Punch(range);
      compressed_.Forget(range.host.value, range.length);
      const std::lock_guard lock(mutex_);
      const uint64_t last = range.host.value + range.length - 1;
      for (uint64_t cluster = range.host.value / cluster_size_;
           cluster <= last / cluster_size_; ++cluster) {
        LetGoOf(cluster);
      }
    } catch (...) {
      // At worst a leak; the others are freed all the same.
      if (!failure) failure = std::current_exception();
    }
  }
  WriteRefcounts();
  if (wipes_freed_) file_.Flush();  // What was wiped is to stay so.
  if (failure) std::rethrow_exception(failure);
}

// Under mutex_, also while it wipes: nobody may allocate the cluster before.
void TableUpdates::LetGoOf(uint64_t cluster) {
  const uint64_t at = cluster * cluster_size_;
  if (wipes_freed_ && refcounts_.Get(cluster) == 1 && at < file_.size()) {
    file_.WriteZeroes(at, std::min(cluster_size_, file_.size() - at),
                      ZeroMode::kFreeSpace);
  }
  if (!refcounts_.Decrement(cluster)) return;
  // It may have been a table.
  map_.l2_cache().Forget({at}, cluster_size_);
  regions_.Drop(at, cluster_size_);
}

void TableUpdates::Punch(const Freed& freed) {
  const uint64_t end = std::min(freed.host.value + freed.length, file_.size());
  for (uint64_t at = freed.host.value; at < end;) {
    // As far as no snapshot refers to it.
    uint64_t run_end = at;
    {
      const std::lock_guard lock(mutex_);
      while (run_end < end && refcounts_.Get(run_end / cluster_size_) == 1) {
        run_end = std::min(run_end + cluster_size_, end);
      }
    }
    if (run_end == at) {
      at += cluster_size_;
      continue;
    }
    file_.FreeSpace(at, run_end - at);
    at = run_end;
  }
}

// Lower counts need no barrier of their own: until they are durable the
// clusters count as leaked.
void TableUpdates::WriteRefcounts() {
  std::vector<Refcounts::Change> changes;
  {
    const std::lock_guard lock(mutex_);
    changes = refcounts_.TakeChanges();
  }
  try {
    for (const Refcounts::Change& change : changes) {
      file_.Write(change.offset, change.bytes);
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    refcounts_.ChangesNotWritten(changes);
    throw;
  }
  const std::lock_guard lock(mutex_);
  refcounts_.ChangesWritten(changes);
}

}  // namespace pellucid::qcow2
