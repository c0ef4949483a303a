#ifndef PELLUCID_TOOLS_DURATION_H_
#define PELLUCID_TOOLS_DURATION_H_

#include <chrono>
#include <string_view>

namespace pellucid::cli {

// Longer than anything runs, and far from what clocks can hold.
inline constexpr std::chrono::hours kGreatestDuration{24 * 3650};

// A time as people write it: "90" (seconds), "90s", "15m" or "15min", "2h",
// "1d"; from a second to kGreatestDuration. Throws UsageError that names
// `option`.
std::chrono::seconds ParseDuration(std::string_view option,
                                   std::string_view text);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_DURATION_H_
