#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

#include "tests/engine/crash_points.h"

namespace pellucid {
namespace {

constexpr uint64_t kSector = 512;

// A disk with room behind its end, where it is zero.
struct Disk {
  Bytes bytes;
  uint64_t size = 0;

  std::span<const std::byte> content() const {
    return std::span(bytes).first(size);
  }

  // Everything of `event` from byte `begin` to byte `end` of it.
  void Apply(const DiskEvent& event, uint64_t begin, uint64_t end) {
    switch (event.kind) {
      case DiskEvent::Kind::kWrite:
        std::memcpy(bytes.data() + event.offset + begin,
                    event.bytes.data() + begin, end - begin);
        size = std::max(size, event.offset + end);
        break;
      case DiskEvent::Kind::kZeroes:
        std::memset(bytes.data() + event.offset + begin, 0, end - begin);
        break;
      case DiskEvent::Kind::kResize:
        Cut(event.length);
        break;
      case DiskEvent::Kind::kFlush:
        break;
    }
  }

  void Cut(uint64_t new_size) {
    if (new_size < size) {
      std::memset(bytes.data() + new_size, 0, size - new_size);
    }
    size = new_size;
  }
};

class Enumeration {
 public:
  Enumeration(const CrashDisks& disks, double samples, uint64_t seed,
              const std::function<void(const CrashPoint&)>& check)
      : events_(disks.events()), samples_(samples), check_(check) {
    random_.seed(seed);
    for (size_t i = 0; i < disks.initial().size(); ++i) {
      Disk disk{.bytes = disks.initial()[i], .size = disks.initial()[i].size()};
      disk.bytes.resize(Room(i, disk.size));
      now_.push_back(disk);
      durable_.push_back(disk);
      sample_.push_back(std::move(disk));
    }
    pending_.resize(now_.size());
    sizes_.resize(now_.size());
  }

  uint64_t Run() && {
    Check(now_, 0, "nothing");
    for (size_t i = 0; i < events_.size(); ++i) {
      const DiskEvent& event = events_[i];
      if (event.kind == DiskEvent::Kind::kFlush) {
        for (const size_t done : pending_[event.disk]) {
          ApplyWhole(events_[done], durable_[event.disk]);
          ApplyWhole(events_[done], sample_[event.disk]);
        }
        pending_[event.disk].clear();
        sizes_[event.disk].clear();
        continue;
      }
      ApplyWhole(event, now_[event.disk]);
      pending_[event.disk].push_back(i);
      sizes_[event.disk].push_back(now_[event.disk].size);
      Check(now_, i + 1, "all of them");
      wanted_ += samples_;
      for (; wanted_ >= 1; wanted_ -= 1) Sample(i + 1);
    }
    Check(now_, events_.size(), "all of them");
    return points_;
  }

 private:
  enum Pattern { kEvents, kSectors, kLastFirst, kAllButOne, kOnlyOne, kMost };

  uint64_t Room(size_t disk, uint64_t size) const {
    for (const DiskEvent& event : events_) {
      if (event.disk != disk) continue;
      size = std::max(size, event.offset + event.length);
    }
    return size;
  }

  static void ApplyWhole(const DiskEvent& event, Disk& disk) {
    disk.Apply(event, 0, event.length);
  }

  void Check(const std::vector<Disk>& disks, size_t position,
             std::string description) {
    CrashPoint point;
    point.position = position;
    for (const Disk& disk : disks) point.disks.push_back(disk.content());
    point.description =
        fmt::format("after {} events, of those behind the last flush {}",
                    position, description);
    ++points_;
    check_(point);
  }

  void Sample(size_t position) {
    const auto pattern = static_cast<Pattern>(random_() % 6);
    std::string description;
    for (size_t i = 0; i < sample_.size(); ++i) {
      SampleDisk(i, pattern, description);
    }
    Check(sample_, position, description);
    for (size_t i = 0; i < sample_.size(); ++i) Restore(i);
  }

  void SampleDisk(size_t number, Pattern pattern, std::string& description) {
    const std::vector<size_t>& pending = pending_[number];
    if (pending.empty()) return;
    Disk& disk = sample_[number];
    const size_t chosen = random_() % pending.size();
    for (size_t i = 0; i < pending.size(); ++i) {
      const DiskEvent& event = events_[pending[i]];
      bool by_sector = pattern == kSectors || pattern == kMost;
      bool whole = true;
      if (pattern == kEvents) whole = random_() % 2 != 0;
      if (pattern == kLastFirst) whole = i >= chosen;
      if (pattern == kAllButOne) whole = i != chosen;
      if (pattern == kOnlyOne) whole = i == chosen;
      // The edge of the pattern is torn.
      if (i == chosen && pattern != kEvents) by_sector = random_() % 2 != 0;
      if (event.kind == DiskEvent::Kind::kResize) by_sector = false;
      if (by_sector) {
        const uint64_t odds = pattern == kMost ? 8 : 2;
        description += fmt::format(" #{} torn", pending[i]);
        ApplySectors(event, odds, disk);
      } else if (whole) {
        description += fmt::format(" #{}", pending[i]);
        ApplyWhole(event, disk);
      }
    }
    // Where the end is has an order of its own.
    if (random_() % 2 == 0) {
      const size_t choice = random_() % (pending.size() + 1);
      const uint64_t size =
          choice == 0 ? durable_[number].size : sizes_[number][choice - 1];
      description += fmt::format(" size {}", size);
      disk.Cut(size);
    }
  }

  // Each sector with odds - 1 to 1.
  void ApplySectors(const DiskEvent& event, uint64_t odds, Disk& disk) {
    uint64_t begin = 0;
    while (begin < event.length) {
      const uint64_t end = std::min(
          event.length, begin + kSector - (event.offset + begin) % kSector);
      if (random_() % odds != 0) disk.Apply(event, begin, end);
      begin = end;
    }
  }

  // Makes a sample the durable disk again where events can have touched it.
  void Restore(size_t number) {
    Disk& disk = sample_[number];
    const Disk& durable = durable_[number];
    const auto restore = [&](uint64_t begin, uint64_t end) {
      std::memcpy(disk.bytes.data() + begin, durable.bytes.data() + begin,
                  end - begin);
    };
    uint64_t smallest = durable.size;
    for (const uint64_t size : sizes_[number]) {
      smallest = std::min(smallest, size);
    }
    restore(smallest, std::max(smallest, durable.size));
    for (const size_t i : pending_[number]) {
      const DiskEvent& event = events_[i];
      if (event.kind == DiskEvent::Kind::kResize) continue;
      restore(event.offset, event.offset + event.length);
    }
    disk.size = durable.size;
  }

  const std::vector<DiskEvent>& events_;
  const double samples_;
  const std::function<void(const CrashPoint&)>& check_;
  std::mt19937_64 random_;
  std::vector<Disk> now_;      // After all events until now.
  std::vector<Disk> durable_;  // After those in front of the last flush.
  std::vector<Disk> sample_;   // durable_, but while a sample is checked.
  std::vector<std::vector<size_t>> pending_;  // By disk: events since a flush.
  std::vector<std::vector<uint64_t>> sizes_;  // By disk: sizes after those.
  double wanted_ = 0;
  uint64_t points_ = 0;
};

}  // namespace

uint64_t ForEachCrashPoint(
    const CrashDisks& disks, double samples, uint64_t seed,
    const std::function<void(const CrashPoint&)>& check) {
  return Enumeration(disks, samples, seed, check).Run();
}

}  // namespace pellucid
