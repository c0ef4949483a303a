#ifndef PELLUCID_ENGINE_RANGE_LOCKS_H_
#define PELLUCID_ENGINE_RANGE_LOCKS_H_

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace pellucid {

// Keeps requests for overlapping ranges of numbers apart. Safe to call from
// many threads. Whoever holds a range must not ask for another.
class RangeLocks {
 public:
  // Holds [begin, end) from the construction to the end.
  class Guard {
   public:
    Guard(RangeLocks& locks, uint64_t begin, uint64_t end)
        : locks_(locks), range_{begin, end} {
      locks_.Take(range_);
    }
    ~Guard() { locks_.Release(range_); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    RangeLocks& locks_;
    const struct Range {
      uint64_t begin;
      uint64_t end;
    } range_;
    friend class RangeLocks;
  };

 private:
  using Range = Guard::Range;

  void Take(const Range& range) {
    std::unique_lock lock(mutex_);
    released_.wait(lock, [&] {
      return std::ranges::none_of(held_, [&](const Range& held) {
        return held.begin < range.end && range.begin < held.end;
      });
    });
    held_.push_back(range);
  }

  void Release(const Range& range) {
    {
      const std::lock_guard lock(mutex_);
      const auto at = std::ranges::find(held_, range.begin, &Range::begin);
      *at = held_.back();
      held_.pop_back();
    }
    released_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable released_;
  std::vector<Range> held_;  // Guarded by mutex_; as many as threads at most.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_RANGE_LOCKS_H_
