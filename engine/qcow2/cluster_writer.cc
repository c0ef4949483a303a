#include "engine/qcow2/cluster_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include "engine/errors.h"

namespace pellucid::qcow2 {
namespace {

// Clusters that are entered into the tables at a time.
constexpr uint64_t kMaxAllocatingBytes = 4 << 20;

constexpr std::array<std::byte, 64 << 10> kZeros{};

uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

ClusterWriter::ClusterWriter(Parts parts)
    : file_name_(parts.file_name),
      file_(parts.file),
      data_file_(parts.data_file),
      size_(parts.header.size),
      cluster_size_(parts.header.cluster_size()),
      l2_coverage_(parts.header.l2_coverage()),
      version_(parts.header.version),
      extended_l2_(parts.header.has(kExtendedL2)),
      unit_(extended_l2_ ? cluster_size_ / kSubclusters : cluster_size_),
      backing_(parts.backing),
      map_(parts.map),
      data_(parts.data),
      users_(parts.users),
      view_(std::move(parts.view)),
      regions_(parts.file, file_name_, parts.header, parts.l1_entries,
               parts.snapshots),
      updates_({.file_name = file_name_,
                .file = parts.file,
                .data_file = parts.data_file,
                .header = parts.header,
                .regions = regions_,
                .map = parts.map,
                .compressed = parts.compressed,
                .users = parts.users,
                .repair = std::move(parts.repair),
                .wipes_freed = parts.wipes_freed}) {}

template <typename DoStep>
void ClusterWriter::Repeat(uint64_t length, DoStep do_step) {
  updates_.PrepareForChanges();
  for (uint64_t done = 0; done < length;) {
    Step step;
    {
      const MappingUsers::Section section(users_);
      step = do_step(done);
    }
    done += step.done;
    if (step.needs_flush) updates_.Flush();
  }
}

void ClusterWriter::Write(uint64_t offset, std::span<const std::byte> in) {
  Repeat(in.size(), [&](uint64_t done) {
    return WriteSome({offset + done}, in.subspan(done));
  });
}

ClusterWriter::Step ClusterWriter::WriteSome(GuestOffset guest,
                                             std::span<const std::byte> in) {
  const Mapping mapping = map_.Map(guest, in.size());
  if (!mapping.in_place) return WriteAllocating(guest, in);
  if (data_file_ == nullptr) {
    CheckPlace(mapping.host, mapping.length);
  }
  data_.Write(guest, mapping.host, in.first(mapping.length));
  return {.done = mapping.length};
}

// Whoever allocated a cluster has written some of it, so that the file reaches
// into it. Writing to one behind the end could make a file of petabytes.
void ClusterWriter::CheckPlace(HostOffset host, uint64_t length) const {
  regions_.Check(host.value, length, "guest data");
  const uint64_t last = host.value + length - 1;
  if (last / cluster_size_ * cluster_size_ < file_.size()) return;
  throw CorruptImage(
      fmt::format("{}: guest data at offset {} would lie behind the {}-byte "
                  "file; try `pellucid check --repair all {}`",
                  file_name_, host.value, file_.size(), file_name_));
}

uint64_t ClusterWriter::BytesInSlice(GuestOffset guest) const {
  const uint64_t entries = map_.l2_cache().slice_bytes() / map_.entry_bytes();
  const uint64_t covered = entries * cluster_size_;
  return covered - guest.value % covered;
}

ClusterWriter::Step ClusterWriter::WriteAllocating(
    GuestOffset guest, std::span<const std::byte> in) {
  const uint64_t most =
      std::min<uint64_t>({in.size(), BytesInSlice(guest), kMaxAllocatingBytes});
  const RangeLocks::Guard guard(in_flight_, guest.value / cluster_size_,
                                (guest.value + most - 1) / cluster_size_ + 1);
  const Place place = PlaceOf(guest);
  HostOffset table;
  Plan plan;
  {
    const std::lock_guard lock(updates_.mutex());
    if (updates_.is_full()) return {.needs_flush = true};
    const auto pinned = updates_.PinEntry(place.l1_index, place.index);
    if (!pinned) return {.needs_flush = true};
    table = *pinned;
    try {
      plan = MakePlan(table, guest, most);
    } catch (...) {
      updates_.UnpinEntry(table, place.index);
      throw;
    }
    if (plan.length == 0) updates_.UnpinEntry(table, place.index);
  }
  // Somebody else has allocated it meanwhile.
  if (plan.length == 0) return {};
  try {
    const auto access = plan.allocated.count != 0
                            ? ClusterData::Access::kAlone
                            : ClusterData::Access::kShared;
    data_.WriteWithRim(guest, plan.host + InCluster(guest),
                       in.first(plan.length), plan.head, plan.tail, view_,
                       access);
  } catch (...) {
    const std::lock_guard lock(updates_.mutex());
    updates_.UnpinEntry(table, place.index);
    updates_.refcounts().Release(plan.allocated);
    throw;
  }
  const std::lock_guard lock(updates_.mutex());
  Enter(table, guest, plan);
  updates_.UnpinEntry(table, place.index);
  return {.done = plan.length};
}

bool ClusterWriter::HasHost(const L2Entry& entry) const {
  return (entry.descriptor & kCompressed) == 0 &&
         ((entry.descriptor & kOffsetMask) != 0 ||
          (data_file_ != nullptr && (entry.descriptor & kCopied) != 0));
}

ClusterWriter::Target ClusterWriter::TargetOf(const L2Entry& entry) const {
  if ((entry.descriptor & kCompressed) != 0) return Target::kReplace;
  if (!HasHost(entry)) return Target::kNew;
  return (entry.descriptor & kCopied) != 0 ? Target::kOwn : Target::kReplace;
}

ClusterWriter::Plan ClusterWriter::MakePlan(HostOffset table, GuestOffset guest,
                                            uint64_t length) {
  // By the entries as they are now, behind the lock.
  if (map_.Map(guest, 1).in_place) return {};
  if (data_file_ != nullptr) return PlanExternal(table, guest, length);
  const uint64_t first = PlaceOf(guest).index;
  const L2Entry first_entry = map_.ReadEntry(table, first);
  if (TargetOf(first_entry) == Target::kOwn) {
    const HostOffset host = map_.HostCluster(table, first, first_entry);
    CheckPlace(host, cluster_size_);
    return PlanOwn(host, first_entry.subclusters, guest, length);
  }
  const uint64_t in_cluster = InCluster(guest);
  const uint64_t wanted = (in_cluster + length - 1) / cluster_size_ + 1;
  CheckOld(table, first, first_entry);
  uint64_t count = 1;
  for (; count < wanted; ++count) {
    const L2Entry entry = map_.ReadEntry(table, first + count);
    if (TargetOf(entry) == Target::kOwn) break;
    CheckOld(table, first + count, entry);
  }
  Plan plan;
  plan.allocated = updates_.refcounts().Allocate(count);
  plan.clusters = plan.allocated.count;
  plan.host = {plan.allocated.first * cluster_size_};
  plan.length = std::min(length, plan.clusters * cluster_size_ - in_cluster);
  // The old content of a cluster that is replaced comes along whole.
  const auto unit_of = [&](const L2Entry& entry) {
    return TargetOf(entry) == Target::kReplace ? cluster_size_ : unit_;
  };
  const uint64_t end = in_cluster + plan.length;
  const L2Entry last_entry = map_.ReadEntry(table, first + plan.clusters - 1);
  plan.head = in_cluster % unit_of(first_entry);
  plan.tail = RoundUp(end, unit_of(last_entry)) - end;
  return plan;
}

// Up to the next subcluster with data, which others may be writing in place.
ClusterWriter::Plan ClusterWriter::PlanOwn(HostOffset host,
                                           uint64_t subclusters,
                                           GuestOffset guest,
                                           uint64_t length) const {
  Plan plan;
  plan.host = host;
  plan.clusters = 1;
  const uint64_t in_cluster = InCluster(guest);
  uint64_t end = std::min(in_cluster + length, cluster_size_);
  if (extended_l2_) {
    uint64_t subcluster = in_cluster / unit_;
    while (subcluster * unit_ < end && (subclusters >> subcluster & 1) == 0) {
      ++subcluster;
    }
    end = std::min(end, subcluster * unit_);
  }
  plan.length = end - in_cluster;
  plan.head = in_cluster % unit_;
  plan.tail = RoundUp(end, unit_) - end;
  return plan;
}

// In an external data file every cluster has its place from the start.
ClusterWriter::Plan ClusterWriter::PlanExternal(HostOffset table,
                                                GuestOffset guest,
                                                uint64_t length) {
  const uint64_t in_cluster = InCluster(guest);
  const HostOffset host = {guest.value - in_cluster};
  const uint64_t index = PlaceOf(guest).index;
  if (extended_l2_) {
    return PlanOwn(host, map_.ReadEntry(table, index).subclusters, guest,
                   length);
  }
  const uint64_t wanted = (in_cluster + length - 1) / cluster_size_ + 1;
  uint64_t count = 1;
  while (count < wanted &&
         !map_.Map({host.value + count * cluster_size_}, 1).in_place) {
    ++count;
  }
  Plan plan;
  plan.host = host;
  plan.clusters = count;
  plan.length = std::min(length, count * cluster_size_ - in_cluster);
  plan.head = in_cluster;
  plan.tail = RoundUp(in_cluster + plan.length, cluster_size_) -
              (in_cluster + plan.length);
  return plan;
}

void ClusterWriter::Enter(HostOffset table, GuestOffset guest,
                          const Plan& plan) {
  const uint64_t first = PlaceOf(guest).index;
  const uint64_t begin = InCluster(guest) - plan.head;
  const uint64_t end = InCluster(guest) + plan.length + plan.tail;
  for (uint64_t i = 0; i < plan.clusters; ++i) {
    const uint64_t index = first + i;
    const L2Entry old = map_.ReadEntry(table, index);
    L2Entry entry;
    entry.descriptor = (plan.host.value + i * cluster_size_) | kCopied;
    if (extended_l2_) {
      const uint64_t at = i * cluster_size_;
      const uint64_t written =
          SubclusterBits((std::max(begin, at) - at) / unit_,
                         (std::min(end, at + cluster_size_) - at) / unit_);
      // A bitmap beside a compressed cluster means nothing.
      const uint64_t kept =
          TargetOf(old) == Target::kReplace ? 0 : old.subclusters;
      entry.subclusters = (kept | written) & ~(written << kSubclusters);
    }
    map_.ChangeEntry(table, index, entry);
    if (TargetOf(old) == Target::kReplace) {
      FreeOld(table, index, old, /*punch=*/false);
    }
  }
}

// Before anything is changed: what an entry refers to can be let go of.
void ClusterWriter::CheckOld(HostOffset table, uint64_t index,
                             const L2Entry& entry) const {
  const uint64_t allocated =
      entry.subclusters & SubclusterBits(0, kSubclusters);
  if (extended_l2_ && (entry.descriptor & kCompressed) == 0 &&
      ((allocated & entry.subclusters >> kSubclusters) != 0 ||
       (allocated != 0 && !HasHost(entry)))) {
    throw CorruptImage(fmt::format(
        "{}: L2 entry (byte {}) is {:#x} with the bitmap {:#x}: subclusters "
        "are allocated that are zero, or without a cluster; try `pellucid "
        "check --repair all {}`",
        file_name_, map_.EntryOffset(table, index).value, entry.descriptor,
        entry.subclusters, file_name_));
  }
  if (data_file_ != nullptr) return;
  constexpr char kWhat[] = "what is freed";
  if ((entry.descriptor & kCompressed) != 0) {
    const Mapping range = map_.CompressedRange(table, index, entry);
    regions_.Check(range.host.value, range.compressed_size, kWhat);
  } else if (HasHost(entry)) {
    regions_.Check(map_.HostCluster(table, index, entry).value, cluster_size_,
                   kWhat);
  }
}

// Lets go of what an entry referred to that has been changed. CheckOld() comes
// first.
void ClusterWriter::FreeOld(HostOffset table, uint64_t index,
                            const L2Entry& entry, bool punch) {
  if (data_file_ != nullptr) return;
  if ((entry.descriptor & kCompressed) != 0) {
    const Mapping range = map_.CompressedRange(table, index, entry);
    updates_.Free(range.host, range.compressed_size, /*punch=*/false);
  } else if (HasHost(entry)) {
    updates_.Free({entry.descriptor & kOffsetMask}, cluster_size_, punch);
  }
}

void ClusterWriter::WriteZeroes(uint64_t offset, uint64_t length,
                                ZeroMode mode) {
  Repeat(length, [&](uint64_t done) {
    return ZeroSome({offset + done}, length - done, mode);
  });
}

bool ClusterWriter::HasBackingAt(GuestOffset guest) const {
  return backing_ != nullptr && guest.value < backing_->size();
}

ClusterWriter::Step ClusterWriter::WriteZeroBytes(GuestOffset guest,
                                                  uint64_t length) {
  return WriteSome(guest, std::span(kZeros).first(
                              std::min<uint64_t>(length, kZeros.size())));
}

ClusterWriter::Step ClusterWriter::ZeroSome(GuestOffset guest, uint64_t length,
                                            ZeroMode mode) {
  const Mapping mapping = map_.Map(guest, length);
  const bool has_backing = HasBackingAt(guest);
  const bool has_data = mapping.kind == ClusterKind::kData ||
                        mapping.kind == ClusterKind::kCompressed;
  const bool reads_as_zeros =
      mapping.kind == ClusterKind::kZero ||
      (mapping.kind == ClusterKind::kUnallocated && !has_backing);
  // A cluster of zeros may have a place, which can be given back.
  const bool may_free =
      mapping.kind == ClusterKind::kZero && mode == ZeroMode::kFreeSpace;
  if (reads_as_zeros && !may_free) return {.done = mapping.length};

  if (data_file_ != nullptr && has_data) {
    // The data file is to have the same bytes, if it is raw.
    if (data_.is_encrypted()) return WriteZeroBytes(guest, mapping.length);
    data_file_->WriteZeroes(mapping.host.value, mapping.length, mode);
    return {.done = mapping.length};
  }
  if (version_ < 3 && (has_backing || mode == ZeroMode::kKeepSpace)) {
    return WriteZeroBytes(guest, mapping.length);
  }
  // The last cluster may reach past the end of the disk.
  const uint64_t end = guest.value + length == size_
                           ? RoundUp(size_, cluster_size_)
                           : guest.value + length;
  const uint64_t unit =
      mapping.kind == ClusterKind::kCompressed ? cluster_size_ : unit_;
  const uint64_t in_unit = guest.value % unit;
  if (in_unit != 0 || end - guest.value < unit) {
    const uint64_t piece = std::min(mapping.length, unit - in_unit);
    return reads_as_zeros ? Step{.done = piece} : WriteZeroBytes(guest, piece);
  }
  const uint64_t whole = (end - guest.value) / unit * unit;
  const Step step = ZeroEntries(guest, whole, mode);
  return {.done = std::min(step.done, length), .needs_flush = step.needs_flush};
}

ClusterWriter::Step ClusterWriter::ZeroEntries(GuestOffset guest,
                                               uint64_t length, ZeroMode mode) {
  length = std::min(length, BytesInSlice(guest));
  const RangeLocks::Guard guard(in_flight_, guest.value / cluster_size_,
                                (guest.value + length - 1) / cluster_size_ + 1);
  const std::lock_guard lock(updates_.mutex());
  if (updates_.is_full()) return {.needs_flush = true};
  const Place place = PlaceOf(guest);
  const auto table = updates_.PinEntry(place.l1_index, place.index);
  if (!table) return {.needs_flush = true};
  uint64_t done = 0;
  try {
    while (done < length) {
      const GuestOffset at = guest + done;
      const uint64_t piece =
          std::min(length - done, cluster_size_ - InCluster(at));
      const Mapping mapping = map_.Map(at, 1);
      // Only whole ones can be replaced; version 2 has no zeros to put above a
      // backing file.
      if ((mapping.kind == ClusterKind::kCompressed &&
           piece != cluster_size_) ||
          (data_file_ != nullptr && mapping.kind == ClusterKind::kData) ||
          (version_ < 3 && HasBackingAt(at))) {
        break;
      }
      ZeroEntry(*table, at, piece, mode);
      done += piece;
    }
  } catch (...) {
    updates_.UnpinEntry(*table, place.index);
    throw;
  }
  updates_.UnpinEntry(*table, place.index);
  return {.done = done};
}

void ClusterWriter::ZeroEntry(HostOffset table, GuestOffset guest,
                              uint64_t length, ZeroMode mode) {
  const uint64_t index = PlaceOf(guest).index;
  const L2Entry old = map_.ReadEntry(table, index);
  const bool needs_flag =
      HasBackingAt({guest.value - InCluster(guest)}) || data_file_ != nullptr;
  const bool is_own = TargetOf(old) == Target::kOwn;
  CheckOld(table, index, old);
  L2Entry entry;
  if (length == cluster_size_) {
    const bool keep_place = mode == ZeroMode::kKeepSpace && is_own;
    if (keep_place) entry.descriptor = old.descriptor & (kOffsetMask | kCopied);
    if (extended_l2_) {
      entry.subclusters = keep_place || needs_flag
                              ? SubclusterBits(0, kSubclusters) << kSubclusters
                              : 0;
    } else if (keep_place || needs_flag) {
      entry.descriptor |= kReadsAsZeros;
    }
    if (!keep_place) {
      FreeOld(table, index, old, mode == ZeroMode::kFreeSpace);
    }
  } else {
    const uint64_t first = InCluster(guest) / unit_;
    const uint64_t bits = SubclusterBits(first, first + length / unit_);
    entry = old;
    entry.subclusters = (old.subclusters & ~bits) | bits << kSubclusters;
    const bool is_empty =
        (entry.subclusters & SubclusterBits(0, kSubclusters)) == 0;
    if (is_empty && mode == ZeroMode::kFreeSpace && is_own &&
        data_file_ == nullptr) {
      entry.descriptor = 0;
      FreeOld(table, index, old, /*punch=*/true);
    }
  }
  if (entry != old) map_.ChangeEntry(table, index, entry);
}

}  // namespace pellucid::qcow2
