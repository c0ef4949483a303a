#include "fuse/view_names.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_set>

namespace pellucid::fuse {
namespace {

constexpr size_t kMaxNameBytes = 255;

// The bytes of the UTF-8 character that `text` begins with, and its number; 0
// bytes if it begins with none.
size_t DecodeUtf8(std::string_view text, uint32_t& code) {
  const auto lead = static_cast<uint8_t>(text[0]);
  size_t length = 0;
  uint32_t least = 0;
  if (lead < 0x80) {
    code = lead;
    return 1;
  }
  if (lead >= 0xc2 && lead < 0xe0) {
    length = 2;
    code = lead & 0x1fU;
    least = 0x80;
  } else if (lead >= 0xe0 && lead < 0xf0) {
    length = 3;
    code = lead & 0x0fU;
    least = 0x800;
  } else if (lead >= 0xf0 && lead < 0xf5) {
    length = 4;
    code = lead & 0x07U;
    least = 0x10000;
  } else {
    return 0;
  }
  if (text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if ((byte & 0xc0U) != 0x80) return 0;
    code = code << 6 | (byte & 0x3fU);
  }
  const bool is_surrogate = code >= 0xd800 && code < 0xe000;
  return code < least || code > 0x10ffff || is_surrogate ? 0 : length;
}

bool IsControl(uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) ||  // C0, DEL, C1.
         code == 0x2028 || code == 0x2029 ||              // Line separators.
         code == 0x061c || code == 0x200e || code == 0x200f ||  // Direction.
         (code >= 0x202a && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069);
}

// The safe spelling of `name` as far as it fits into `room` bytes; whether all
// of it did.
struct Spelling {
  std::string text;
  bool is_complete = true;
};
Spelling Spell(std::string_view name, size_t room) {
  Spelling spelling;
  const bool is_dots = name == "." || name == "..";
  while (!name.empty()) {
    uint32_t code = 0;
    size_t length = DecodeUtf8(name, code);
    std::string piece(name.substr(0, length));
    if (length == 0 || is_dots || code == '/' || code == '%' ||
        IsControl(code)) {
      length = length == 0 ? 1 : length;
      piece.clear();
      for (const char byte : name.substr(0, length)) {
        piece += fmt::format("%{:02X}", static_cast<uint8_t>(byte));
      }
    }
    if (spelling.text.size() + piece.size() > room) {
      spelling.is_complete = false;
      break;
    }
    spelling.text += piece;
    name.remove_prefix(length);
  }
  return spelling;
}

}  // namespace

std::vector<std::string> SafeNames(std::span<const std::string> names) {
  std::vector<std::string> safe;
  std::unordered_set<std::string> taken;
  for (size_t i = 0; i < names.size(); ++i) {
    Spelling spelling = Spell(names[i], kMaxNameBytes);
    if (spelling.text.empty() || !spelling.is_complete ||
        taken.contains(spelling.text)) {
      // Nothing else has a '%' in front of a '~'.
      const std::string mark = fmt::format("%~{}", i + 1);
      spelling = Spell(names[i], kMaxNameBytes - mark.size());
      spelling.text += mark;
    }
    taken.insert(spelling.text);
    safe.push_back(std::move(spelling.text));
  }
  return safe;
}

}  // namespace pellucid::fuse
