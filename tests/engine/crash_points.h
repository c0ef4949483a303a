#ifndef PELLUCID_TESTS_ENGINE_CRASH_POINTS_H_
#define PELLUCID_TESTS_ENGINE_CRASH_POINTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "tests/engine/crash_device.h"

namespace pellucid {

// Disks as a power cut leaves them.
struct CrashPoint {
  // Events that had begun; the last one may be on the disk in part.
  size_t position = 0;
  // In the order of CrashDisks; to be copied if kept.
  std::vector<std::span<const std::byte>> disks;
  std::string description;  // For a failed test: which events are there.
};

// Goes through what power cuts can leave of `disks` after their events:
//
// - After each event: exactly the events up to there.
// - `samples` times an event that is no flush, on the average: everything in
//   front of the last flush of a disk is on that disk; each 512-byte sector of
//   what was written since is old or new on its own, in patterns that take
//   turns (whole events, single sectors, the last ones first, all but one); the
//   end of the disk is at any of the places where it was since.
//
// Deterministic for a `seed`. Costs what the events of one epoch cost a sample,
// not the size of the disks. Returns how many points there were.
uint64_t ForEachCrashPoint(const CrashDisks& disks, double samples,
                           uint64_t seed,
                           const std::function<void(const CrashPoint&)>& check);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_CRASH_POINTS_H_
