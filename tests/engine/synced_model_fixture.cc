#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "tests/engine/synced_model.h"

namespace pellucid {
namespace {

constexpr uint64_t kSector = SyncedModel::kSector;
constexpr size_t kWords = kSector / 8;

std::array<uint64_t, kWords> ContentOf(uint64_t sector, uint64_t version) {
  std::array<uint64_t, kWords> words;
  words[0] = sector;
  words[1] = version;
  uint64_t state = (sector << 32 ^ version) * 0x9e37'79b9'7f4a'7c15 + 1;
  for (size_t i = 2; i < kWords; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    words[i] = state ^ state >> 29;
  }
  return words;
}

bool IsZero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes,
                             [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

SyncedModel::SyncedModel(Bytes initial)
    : initial_(std::move(initial)), history_(initial_.size() / kSector) {
  for (std::vector<Version>& versions : history_) {
    versions.push_back({.number = 0, .end = 0, .is_zero = false});
  }
}

SyncedModel::Change SyncedModel::Begin(uint64_t first_sector, uint64_t sectors,
                                       bool is_zero) {
  const std::lock_guard lock(mutex_);
  Change change;
  change.version = ++tick_;
  change.first_sector = first_sector;
  change.sectors = sectors;
  for (uint64_t i = 0; i < sectors; ++i) {
    history_.at(first_sector + i)
        .push_back(
            {.number = change.version, .end = UINT64_MAX, .is_zero = is_zero});
  }
  return change;
}

SyncedModel::Change SyncedModel::BeginWrite(uint64_t first_sector,
                                            uint64_t sectors) {
  Change change = Begin(first_sector, sectors, false);
  change.content.resize(sectors * kSector);
  for (uint64_t i = 0; i < sectors; ++i) {
    const auto words = ContentOf(first_sector + i, change.version);
    std::memcpy(change.content.data() + i * kSector, words.data(), kSector);
  }
  return change;
}

SyncedModel::Change SyncedModel::BeginZeroes(uint64_t first_sector,
                                             uint64_t sectors) {
  return Begin(first_sector, sectors, true);
}

void SyncedModel::End(const Change& change) {
  const std::lock_guard lock(mutex_);
  const uint64_t end = ++tick_;
  for (uint64_t i = 0; i < change.sectors; ++i) {
    std::vector<Version>& versions = history_[change.first_sector + i];
    std::ranges::find(versions, change.version, &Version::number)->end = end;
  }
}

uint64_t SyncedModel::BeginSync() {
  const std::lock_guard lock(mutex_);
  return ++tick_;
}

void SyncedModel::EndSync(uint64_t begun, size_t position) {
  const std::lock_guard lock(mutex_);
  syncs_.push_back({.begun = begun, .position = position});
}

std::string SyncedModel::Check(std::span<const std::byte> disk,
                               size_t position) {
  const std::lock_guard lock(mutex_);
  uint64_t synced = 0;
  for (const Sync& sync : syncs_) {
    if (sync.position <= position) synced = std::max(synced, sync.begun);
  }
  return CheckAgainst(disk, synced);
}

std::string SyncedModel::CheckNow(std::span<const std::byte> disk) {
  const std::lock_guard lock(mutex_);
  return CheckAgainst(disk, ++tick_);
}

// A version is gone for good if another began after its end and ended before
// the flush began.
uint64_t SyncedModel::FloorOf(uint64_t sector, uint64_t synced) const {
  uint64_t floor = 0;
  for (const Version& version : history_[sector]) {
    if (version.end <= synced) floor = std::max(floor, version.number);
  }
  return floor;
}

bool SyncedModel::Holds(uint64_t sector, const Version& version,
                        std::span<const std::byte> content) const {
  if (version.number == 0) {
    return std::memcmp(initial_.data() + sector * kSector, content.data(),
                       kSector) == 0;
  }
  if (version.is_zero) return IsZero(content);
  const auto words = ContentOf(sector, version.number);
  return std::memcmp(words.data(), content.data(), kSector) == 0;
}

std::string SyncedModel::CheckAgainst(std::span<const std::byte> disk,
                                      uint64_t synced) {
  if (disk.size() != initial_.size()) {
    return fmt::format("the disk has {} bytes, not {}", disk.size(),
                       initial_.size());
  }
  if (floors_synced_ != synced || floors_tick_ != tick_) {
    floors_.resize(history_.size());
    for (uint64_t i = 0; i < floors_.size(); ++i) {
      floors_[i] = FloorOf(i, synced);
    }
    floors_synced_ = synced;
    floors_tick_ = tick_;
  }
  for (uint64_t sector = 0; sector < history_.size(); ++sector) {
    const auto content = disk.subspan(sector * kSector, kSector);
    const std::vector<Version>& versions = history_[sector];
    const uint64_t floor = floors_[sector];
    // The version that the content claims to be is the likely one.
    uint64_t claimed = 0;
    std::memcpy(&claimed, content.data() + 8, sizeof(claimed));
    const auto likely =
        std::ranges::lower_bound(versions, claimed, {}, &Version::number);
    if (likely != versions.end() && likely->end >= floor &&
        Holds(sector, *likely, content)) {
      continue;
    }
    const bool legal = std::ranges::any_of(versions, [&](const Version& v) {
      return v.end >= floor && (v.number == 0 || v.is_zero) &&
             Holds(sector, v, content);
    });
    if (legal) continue;
    uint64_t claimed_sector = 0;
    std::memcpy(&claimed_sector, content.data(), sizeof(claimed_sector));
    return fmt::format(
        "sector {} (byte {}) must hold version {} or a later one; it {}",
        sector, sector * kSector, floor,
        IsZero(content) ? "is zero"
        : likely != versions.end() && Holds(sector, *likely, content)
            ? fmt::format("holds version {}, which is lost", claimed)
            : fmt::format("claims to be version {} of sector {}", claimed,
                          claimed_sector));
  }
  return "";
}

}  // namespace pellucid
