#ifndef PELLUCID_TOOLS_NUMBER_OPTION_H_
#define PELLUCID_TOOLS_NUMBER_OPTION_H_

#include <cstdint>
#include <string_view>

namespace pellucid::cli {

// No LUKS version has keyslots with greater numbers.
inline constexpr uint32_t kGreatestKeyslot = 31;

// The decimal number `text` that --`option` was given. Throws UsageError with
// the range unless it is from `least` to `greatest`.
uint32_t ParseNumber(std::string_view option, std::string_view text,
                     uint32_t least = 1, uint32_t greatest = UINT32_MAX);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_NUMBER_OPTION_H_
