#include "engine/utf16.h"

#include <cstdint>

#include "engine/little_endian.h"

namespace pellucid {
namespace {

void AppendUtf8(std::string& text, uint32_t code) {
  const auto add = [&](uint32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) return add(code);
  if (code < 0x800) {
    add(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    add(0xe0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3f));
  } else {
    add(0xf0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3f));
    add(0x80 | (code >> 6 & 0x3f));
  }
  add(0x80 | (code & 0x3f));
}

}  // namespace

std::string Utf8FromUtf16(std::span<const std::byte> bytes) {
  const auto unit = [&](size_t i) -> uint32_t {
    return i < bytes.size() / 2 ? LoadLittleEndian<uint16_t>(bytes, 2 * i) : 0;
  };
  std::string text;
  for (size_t i = 0; unit(i) != 0; ++i) {
    uint32_t code = unit(i);
    if (code >= 0xd800 && code < 0xe000) {
      const uint32_t low = unit(i + 1);
      if (code < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        ++i;
      } else {
        code = 0xfffd;
      }
    }
    AppendUtf8(text, code);
  }
  return text;
}

}  // namespace pellucid
