#include "tools/byte_size.h"

#include <fmt/core.h>

#include <charconv>
#include <limits>

#include "engine/errors.h"

namespace pellucid::cli {
namespace {

constexpr std::string_view kUnits = "KMGTPE";

[[noreturn]] void ThrowNotASize(std::string_view option,
                                std::string_view text) {
  throw UsageError(fmt::format(
      "--{} takes a size such as 4096, 64K or 10MiB, not '{}'", option, text));
}

// The power of 2 that "M", "m" or "MiB" stands for; 0 for no suffix.
unsigned ShiftOfSuffix(std::string_view option, std::string_view text,
                       std::string_view suffix) {
  if (suffix.empty()) return 0;
  const char letter =
      suffix[0] >= 'a' ? static_cast<char>(suffix[0] - 'a' + 'A') : suffix[0];
  const size_t unit = kUnits.find(letter);
  if (unit == std::string_view::npos) ThrowNotASize(option, text);
  if (suffix.size() > 1 && suffix.substr(1) != "iB") {
    ThrowNotASize(option, text);
  }
  return 10 * (static_cast<unsigned>(unit) + 1);
}

}  // namespace

uint64_t ParseByteSize(std::string_view option, std::string_view text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [digits_end, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::invalid_argument) ThrowNotASize(option, text);
  const unsigned shift = ShiftOfSuffix(
      option, text, text.substr(static_cast<size_t>(digits_end - text.data())));
  if (error == std::errc::result_out_of_range ||
      number > std::numeric_limits<uint64_t>::max() >> shift) {
    throw UsageError(fmt::format("--{} {} is too large", option, text));
  }
  return number << shift;
}

std::string FormatByteSize(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::string number = fmt::format("{:.1f}", value);
  if (number.ends_with(".0")) number.resize(number.size() - 2);
  return fmt::format("{} {}iB", number, kUnits[unit]);
}

std::string FormatExactByteSize(uint64_t bytes) {
  if (bytes < 1024) return FormatByteSize(bytes);
  return fmt::format("{} ({} bytes)", FormatByteSize(bytes), bytes);
}

}  // namespace pellucid::cli
