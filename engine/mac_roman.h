#ifndef PELLUCID_ENGINE_MAC_ROMAN_H_
#define PELLUCID_ENGINE_MAC_ROMAN_H_

#include <cstddef>
#include <span>
#include <string>

namespace pellucid {

// The UTF-8 of a text in Mac OS Roman, as Apple's partition maps have names. It
// ends at the first zero, or with the bytes.
std::string Utf8FromMacRoman(std::span<const std::byte> bytes);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_MAC_ROMAN_H_
