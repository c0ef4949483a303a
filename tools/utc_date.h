#ifndef PELLUCID_TOOLS_UTC_DATE_H_
#define PELLUCID_TOOLS_UTC_DATE_H_

#include <cstdint>
#include <string>

namespace pellucid::cli {

// "2026-11-23T04:05:06Z" for a number of seconds since 1970, with a fraction
// of nine digits if `nanoseconds` is not 0.
std::string FormatUtcDate(int64_t seconds, uint32_t nanoseconds = 0);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_UTC_DATE_H_
