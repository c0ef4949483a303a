#include "engine/mac_roman.h"

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/utf16.h"

namespace pellucid {
namespace {

// Of the bytes from 0x80 on: Unicode's APPLE/ROMAN.TXT.
constexpr std::u16string_view kUpperHalf =
    u"\u00c4\u00c5\u00c7\u00c9\u00d1\u00d6\u00dc\u00e1\u00e0\u00e2\u00e4\u00e3"
    u"\u00e5\u00e7\u00e9\u00e8\u00ea\u00eb\u00ed\u00ec\u00ee\u00ef\u00f1\u00f3"
    u"\u00f2\u00f4\u00f6\u00f5\u00fa\u00f9\u00fb\u00fc\u2020\u00b0\u00a2\u00a3"
    u"\u00a7\u2022\u00b6\u00df\u00ae\u00a9\u2122\u00b4\u00a8\u2260\u00c6\u00d8"
    u"\u221e\u00b1\u2264\u2265\u00a5\u00b5\u2202\u2211\u220f\u03c0\u222b\u00aa"
    u"\u00ba\u03a9\u00e6\u00f8\u00bf\u00a1\u00ac\u221a\u0192\u2248\u2206\u00ab"
    u"\u00bb\u2026\u00a0\u00c0\u00c3\u00d5\u0152\u0153\u2013\u2014\u201c\u201d"
    u"\u2018\u2019\u00f7\u25ca\u00ff\u0178\u2044\u20ac\u2039\u203a\ufb01\ufb02"
    u"\u2021\u00b7\u201a\u201e\u2030\u00c2\u00ca\u00c1\u00cb\u00c8\u00cd\u00ce"
    u"\u00cf\u00cc\u00d3\u00d4\uf8ff\u00d2\u00da\u00db\u00d9\u0131\u02c6\u02dc"
    u"\u00af\u02d8\u02d9\u02da\u00b8\u02dd\u02db\u02c7";
static_assert(kUpperHalf.size() == 128);

}  // namespace

std::string Utf8FromMacRoman(std::span<const std::byte> bytes) {
  std::vector<std::byte> utf16;
  for (const std::byte byte : bytes) {
    const auto value = std::to_integer<uint8_t>(byte);
    const char16_t unit =
        value < 0x80 ? char16_t{value} : kUpperHalf[value - 0x80];
    utf16.push_back(static_cast<std::byte>(unit & 0xff));
    utf16.push_back(static_cast<std::byte>(unit >> 8));
  }
  return Utf8FromUtf16(utf16);
}

}  // namespace pellucid
