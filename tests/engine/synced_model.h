#ifndef PELLUCID_TESTS_ENGINE_SYNCED_MODEL_H_
#define PELLUCID_TESTS_ENGINE_SYNCED_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"

namespace pellucid {

// What each 512-byte sector of a virtual disk may hold after a power cut: what
// a completed flush made durable, or anything that was written since. A sector
// that was written holds its number and a version number, from which all of its
// bytes follow, so that an old, a foreign and a mixed sector are told apart.
// Safe to call from many threads.
class SyncedModel {
 public:
  static constexpr uint64_t kSector = 512;

  // `initial` is the disk at first, whole sectors.
  explicit SyncedModel(Bytes initial);

  uint64_t sectors() const { return history_.size(); }

  // A change of sectors, from Begin...() until End(), which is called when the
  // write has returned without an error; not at all if it failed.
  struct Change {
    uint64_t version = 0;
    uint64_t first_sector = 0;
    uint64_t sectors = 0;
    Bytes content;  // To be written; empty for zeroes.
  };
  Change BeginWrite(uint64_t first_sector, uint64_t sectors);
  Change BeginZeroes(uint64_t first_sector, uint64_t sectors);
  void End(const Change& change);

  // In front of a flush, and behind it if it returned without an error:
  // `position` is CrashDisks::position() then.
  uint64_t BeginSync();
  void EndSync(uint64_t begun, size_t position);

  // Says what is wrong with `disk` after a power cut at `position`; empty if
  // nothing is. Positions may only grow from call to call.
  std::string Check(std::span<const std::byte> disk, size_t position);

  // The same for a disk that is open: only the last writes are right.
  std::string CheckNow(std::span<const std::byte> disk);

 private:
  struct Version {
    uint64_t number = 0;  // The tick when it began.
    uint64_t end = UINT64_MAX;
    bool is_zero = false;
  };
  struct Sync {
    uint64_t begun = 0;
    size_t position = 0;
  };

  Change Begin(uint64_t first_sector, uint64_t sectors, bool is_zero);
  std::string CheckAgainst(std::span<const std::byte> disk, uint64_t synced);
  // The earliest tick at which what the sector holds may have ended.
  uint64_t FloorOf(uint64_t sector, uint64_t synced) const;
  bool Holds(uint64_t sector, const Version& version,
             std::span<const std::byte> content) const;

  const Bytes initial_;
  std::mutex mutex_;
  uint64_t tick_ = 0;
  std::vector<std::vector<Version>> history_;  // By sector, by number.
  std::vector<Sync> syncs_;
  // Floors for floors_synced_, so that a check costs no search for them.
  std::vector<uint64_t> floors_;
  uint64_t floors_synced_ = UINT64_MAX;
  size_t floors_tick_ = 0;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_SYNCED_MODEL_H_
