#include "tools/number_option.h"

#include <fmt/core.h>

#include <charconv>

#include "engine/errors.h"

namespace pellucid::cli {

uint32_t ParseNumber(std::string_view option, std::string_view text,
                     uint32_t least, uint32_t greatest) {
  uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [parsed_to, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || parsed_to != end || number < least ||
      number > greatest) {
    throw UsageError(fmt::format("--{} takes a number from {} to {}, not '{}'",
                                 option, least, greatest, text));
  }
  return number;
}

}  // namespace pellucid::cli
