#ifndef PELLUCID_TESTS_ENGINE_RUN_COST_H_
#define PELLUCID_TESTS_ENGINE_RUN_COST_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <string>

namespace pellucid {

// What one look at a hostile image may cost. Sanitizers make it slow.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::chrono::seconds kMaxRunTime(20);
#else
inline constexpr std::chrono::seconds kMaxRunTime(2);
#endif
inline constexpr uint64_t kMaxRunBytes = 256 << 20;

// What a piece of work costs this process: time on processors, which a busy
// machine does not change, and memory at its height beyond what was there.
// Memory is measured by the kernel; one at a time.
class RunCost {
 public:
  RunCost() {
    std::ofstream reset("/proc/self/clear_refs");
    if (!(reset << "5" << std::flush)) {
      throw std::runtime_error("cannot reset the memory high-water mark");
    }
    memory_ = HighestMemory();
    begin_ = ProcessorTime();
  }

  std::chrono::nanoseconds time() const { return ProcessorTime() - begin_; }
  uint64_t bytes() const {
    // Less than before if the kernel took pages away meanwhile.
    return std::max(HighestMemory(), memory_) - memory_;
  }

 private:
  static std::chrono::nanoseconds ProcessorTime() {
    timespec now = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) +
           std::chrono::nanoseconds(now.tv_nsec);
  }

  static uint64_t HighestMemory() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
      uint64_t kib = 0;
      if (word == "VmHWM:" && status >> kib) return kib * 1024;
    }
    throw std::runtime_error("no VmHWM in /proc/self/status");
  }

  uint64_t memory_ = 0;
  std::chrono::nanoseconds begin_{};
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_RUN_COST_H_
