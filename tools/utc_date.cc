#include "tools/utc_date.h"

#include <fmt/core.h>

#include <ctime>

namespace pellucid::cli {

std::string FormatUtcDate(int64_t seconds, uint32_t nanoseconds) {
  const time_t time = seconds;
  tm parts = {};
  // The year may be more than the C library can count.
  if (gmtime_r(&time, &parts) == nullptr) {
    return fmt::format("{} seconds after 1970", seconds);
  }
  const std::string fraction =
      nanoseconds == 0 ? "" : fmt::format(".{:09}", nanoseconds);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}Z",
                     parts.tm_year + int64_t{1900}, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     fraction);
}

}  // namespace pellucid::cli
