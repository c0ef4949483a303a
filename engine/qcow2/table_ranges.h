#ifndef PELLUCID_ENGINE_QCOW2_TABLE_RANGES_H_
#define PELLUCID_ENGINE_QCOW2_TABLE_RANGES_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace pellucid::qcow2 {

// Ranges of a file that may overlap, as tables of a hostile image do: thousands
// of snapshots can share one L1 table. The walk meets each byte once, and says
// how often it is covered, so that the work is bounded by the file. For one
// thread at a time.
class TableRanges {
 public:
  void Add(uint64_t begin, uint64_t end) {
    if (begin >= end) return;
    begins_.push_back(begin);
    ends_.push_back(end);
  }

  // Calls `each(begin, end, times)` in the order of the file for ranges that do
  // not overlap, each covered `times` (> 0) times.
  template <typename Each>
  void ForEach(Each&& each) {
    std::sort(begins_.begin(), begins_.end());
    std::sort(ends_.begin(), ends_.end());
    uint64_t at = 0;
    uint64_t times = 0;
    auto begin = begins_.begin();
    for (const uint64_t end : ends_) {
      // A range begins before it ends, so begins never run out early.
      for (; begin != begins_.end() && *begin < end; ++begin) {
        if (times != 0 && *begin != at) each(at, *begin, times);
        at = *begin;
        ++times;
      }
      if (end != at) each(at, end, times);
      at = end;
      --times;
    }
  }

 private:
  std::vector<uint64_t> begins_;
  std::vector<uint64_t> ends_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_TABLE_RANGES_H_
