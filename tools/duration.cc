#include "tools/duration.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

#include "engine/errors.h"

namespace pellucid::cli {
namespace {

struct Unit {
  std::string_view name;
  uint32_t seconds;
};

constexpr std::array<Unit, 6> kUnits = {
    {{"", 1}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}}};

}  // namespace

std::chrono::seconds ParseDuration(std::string_view option,
                                   std::string_view text) {
  uint32_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [digits_end, error] = std::from_chars(text.data(), end, number);
  const std::string_view suffix(digits_end,
                                static_cast<size_t>(end - digits_end));
  const auto unit = std::ranges::find(kUnits, suffix, &Unit::name);
  if (error == std::errc() && unit != kUnits.end()) {
    const std::chrono::seconds duration(uint64_t{number} * unit->seconds);
    if (duration.count() > 0 && duration <= kGreatestDuration) return duration;
  }
  throw UsageError(
      fmt::format("--{} takes a time such as 90, 90s, 15m, 2h or 1d, not '{}'",
                  option, text));
}

}  // namespace pellucid::cli
