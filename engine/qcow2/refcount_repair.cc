#include "engine/qcow2/refcount_repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/refcount_comparison.h"
#include "engine/qcow2/reference_scan.h"
#include "engine/qcow2/table_entries.h"

namespace pellucid::qcow2 {
namespace {

// Corrected refcounts that are held in memory.
constexpr uint64_t kMaxChangedBytes = 4 << 20;

[[noreturn]] void Refuse(const std::string& file_name, const std::string& why) {
  throw CorruptImage(fmt::format(
      "{}: was not closed properly (the dirty bit of header field "
      "incompatible_features, byte 72, is set), and its refcounts cannot be "
      "repaired because more is wrong: {}; open it with --read-only, or try "
      "`pellucid check --repair all {}`",
      file_name, why, file_name));
}

ClusterCounts Count(BlockDevice& file, const std::string& file_name,
                    const Header& header,
                    const std::vector<Snapshot>& snapshots) {
  ReferenceScan scan = ScanReferences(file, file_name, header, snapshots);
  for (const Findings* wrong : {&scan.corruptions, &scan.hazards}) {
    if (wrong->count() != 0) Refuse(file_name, wrong->list().front().text);
  }
  return std::move(scan.counts);
}

void WriteChanges(ResizableDevice& file, Refcounts& refcounts) {
  const std::vector<Refcounts::Change> changes = refcounts.TakeChanges();
  try {
    for (const Refcounts::Change& change : changes) {
      file.Write(change.offset, change.bytes);
    }
  } catch (...) {
    refcounts.ChangesNotWritten(changes);
    throw;
  }
  refcounts.ChangesWritten(changes);
}

}  // namespace

RefcountRepair::RefcountRepair(BlockDevice& file, const std::string& file_name,
                               const Header& header,
                               const std::vector<Snapshot>& snapshots)
    : file_name_(file_name),
      header_(header),
      counts_(Count(file, file_name, header, snapshots)) {
  const RefcountComparison comparison = CompareWithRefcounts(
      file, header_, counts_, [&](const RefcountDifference& difference) {
        ++wrong_refcounts_;
        CheckRoom(difference.cluster);
      });
  if (comparison.unreadable != 0) {
    Refuse(file_name_, fmt::format("{} clusters are counted by a refcount "
                                   "block that cannot be where it is said to",
                                   comparison.unreadable));
  }
  ForEachWrongCopiedFlag(
      file, header_, [&](uint64_t cluster) { return counts_[cluster] == 1; },
      [&](const WrongCopiedFlag&) { ++wrong_flags_; });
}

// The table grows before what its new part counts is used, so this is no
// remnant of a crash.
void RefcountRepair::CheckRoom(uint64_t cluster) const {
  const uint64_t per_block =
      (header_.cluster_size() * 8) >> header_.refcount_order;
  const uint64_t entries =
      header_.refcount_table_clusters * header_.cluster_size() / 8;
  if (cluster / per_block < entries) return;
  Refuse(file_name_,
         fmt::format("the cluster at {:#x} is in use, but the refcount table "
                     "ends in front of it",
                     cluster * header_.cluster_size()));
}

void RefcountRepair::Apply(ResizableDevice& file, Refcounts& refcounts,
                           ClusterMap& map) {
  if (wrong_refcounts_ != 0) {
    SetRefcounts(file, refcounts);
    file.Flush();
  }
  // A flag that is set says that the refcount is 1, so that has to be true in
  // the file first.
  if (wrong_flags_ != 0) {
    SetFlags(file, map);
    file.Flush();
  }
}

void RefcountRepair::SetRefcounts(ResizableDevice& file, Refcounts& refcounts) {
  std::set<uint64_t> missing;
  for (const auto& [number, place] : places_) {
    if (!refcounts.HasBlock(number)) missing.insert(number);
  }
  // Compares with the file, not with what an attempt before has left in memory.
  CompareWithRefcounts(
      file, header_, counts_, [&](const RefcountDifference& difference) {
        const uint64_t block =
            difference.cluster / refcounts.clusters_per_block();
        if (!refcounts.HasBlock(block)) {
          missing.insert(block);
          return;
        }
        refcounts.Set(difference.cluster, CountOf(difference.cluster));
        if (refcounts.changed_bytes() > kMaxChangedBytes) {
          WriteChanges(file, refcounts);
        }
      });
  // Now all blocks that are there say what they should.
  for (const uint64_t number : missing) MakeBlock(number, refcounts);
  WriteChanges(file, refcounts);
}

uint64_t RefcountRepair::CountOf(uint64_t cluster) const {
  const bool is_made =
      std::ranges::any_of(places_, [&](const auto& number_and_place) {
        return number_and_place.second == cluster;
      });
  return uint64_t{counts_[cluster]} + (is_made ? 1 : 0);
}

void RefcountRepair::MakeBlock(uint64_t number, Refcounts& refcounts) {
  if (!places_.contains(number)) {
    places_.emplace(number, PlaceFor(number, refcounts));
  }
  const uint64_t place = places_.at(number);
  refcounts.MakeBlockAt(number, place,
                        [&](uint64_t cluster) { return CountOf(cluster); });
  refcounts.Set(place, 1);
}

// A cluster to which nothing refers, if there is one among those that the block
// itself counts.
uint64_t RefcountRepair::PlaceFor(uint64_t number, Refcounts& refcounts) const {
  const uint64_t per_block = refcounts.clusters_per_block();
  for (uint64_t i = 0; i < per_block; ++i) {
    if (CountOf(number * per_block + i) == 0) return number * per_block + i;
  }
  for (uint64_t other = 0; refcounts.CanHaveBlock(other); ++other) {
    if (!refcounts.HasBlock(other)) continue;
    for (uint64_t i = 0; i < per_block; ++i) {
      const uint64_t cluster = other * per_block + i;
      if (CountOf(cluster) == 0) return cluster;
    }
  }
  Refuse(file_name_, "there is no place for a refcount block that is missing");
}

void RefcountRepair::SetFlags(ResizableDevice& file, ClusterMap& map) const {
  ForEachWrongCopiedFlag(
      file, header_, [&](uint64_t cluster) { return counts_[cluster] == 1; },
      [&](const WrongCopiedFlag& wrong) {
        const uint64_t entry = wrong.entry ^ kCopied;
        std::array<std::byte, 8> bytes;
        StoreBigEndian(bytes, 0, entry);
        file.Write(wrong.byte, bytes);
        if (wrong.is_in_l1) {
          map.SetL1Entry((wrong.byte - header_.l1_table_offset) / 8, entry);
        } else {
          // Behind the write, so that it is read again.
          map.l2_cache().Forget({wrong.byte}, 1);
        }
      });
}

}  // namespace pellucid::qcow2
