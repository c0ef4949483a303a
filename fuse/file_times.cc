#include "fuse/file_times.h"

#include <algorithm>
#include <limits>

namespace pellucid::fuse {
namespace {

constexpr int64_t kPerSecond = 1'000'000'000;
constexpr int64_t kGreatestSeconds =
    std::numeric_limits<int64_t>::max() / kPerSecond - 1;

}  // namespace

FileTimes::FileTimes(const struct stat& image)
    : accessed_(Nanoseconds(image.st_atim)),
      modified_(Nanoseconds(image.st_mtim)),
      changed_(Nanoseconds(image.st_ctim)) {}

void FileTimes::Touch() {
  timespec now = {};
  // To within a tick of the kernel's clock, as file systems do.
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  const int64_t nanoseconds = Nanoseconds(now);
  modified_.store(nanoseconds, std::memory_order_relaxed);
  changed_.store(nanoseconds, std::memory_order_relaxed);
}

int64_t FileTimes::Nanoseconds(timespec time) {
  const int64_t seconds =
      std::clamp<int64_t>(time.tv_sec, -kGreatestSeconds, kGreatestSeconds);
  return seconds * kPerSecond + time.tv_nsec;
}

timespec FileTimes::Time(int64_t nanoseconds) {
  int64_t seconds = nanoseconds / kPerSecond;
  int64_t rest = nanoseconds % kPerSecond;
  if (rest < 0) {
    --seconds;
    rest += kPerSecond;
  }
  return {seconds, rest};
}

}  // namespace pellucid::fuse
