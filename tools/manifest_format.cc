#include "tools/manifest_format.h"

namespace pellucid::cli {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

}  // namespace

bool IsChunkSize(uint64_t size) {
  return size >= kMinChunkSize && size <= kMaxChunkSize &&
         size % kMinChunkSize == 0;
}

std::string FormatHex(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4];
    text += kDigits[std::to_integer<unsigned>(byte) & 15];
  }
  return text;
}

bool ParseHex(std::string_view text, std::span<std::byte> bytes) {
  if (text.size() != 2 * bytes.size()) return false;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t high = kDigits.find(text[2 * i]);
    const size_t low = kDigits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) {
      return false;
    }
    bytes[i] = static_cast<std::byte>(high << 4 | low);
  }
  return true;
}

}  // namespace pellucid::cli
