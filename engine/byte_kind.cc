#include "engine/byte_kind.h"

#include <algorithm>
#include <cstdint>

#include "engine/noise_probe.h"

namespace pellucid {
namespace {

// Of ASCII: what is printed, and tabs and ends of lines.
bool IsText(std::byte byte) {
  const auto c = std::to_integer<uint8_t>(byte);
  return (c >= 0x20 && c < 0x7f) || (c >= 0x09 && c <= 0x0d);
}

}  // namespace

ByteKind ByteKindOf(std::span<const std::byte> bytes) {
  size_t zeros = 0;
  size_t text = 0;
  for (const std::byte byte : bytes) {
    zeros += byte == std::byte{0} ? 1 : 0;
    text += IsText(byte) ? 1 : 0;
  }
  if (zeros == bytes.size()) return ByteKind::kZeros;
  // Zeros may be what is left of a file's last block, or one half of UTF-16;
  // a few words in a table do not make it text.
  const size_t others = bytes.size() - zeros - text;
  if (text >= bytes.size() / 4 && others <= (bytes.size() - zeros) / 20) {
    return ByteKind::kText;
  }
  return LooksLikeNoise(bytes) ? ByteKind::kRandom : ByteKind::kMixed;
}

}  // namespace pellucid
