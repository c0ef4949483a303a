#ifndef PELLUCID_ENGINE_UTF16_H_
#define PELLUCID_ENGINE_UTF16_H_

#include <cstddef>
#include <span>
#include <string>

namespace pellucid {

// The UTF-8 of a text in little-endian UTF-16 (The Unicode Standard, 3.9), as
// partition tables and file systems have their labels. It ends at the first
// zero, or with the bytes; half a surrogate pair becomes U+FFFD.
std::string Utf8FromUtf16(std::span<const std::byte> bytes);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_UTF16_H_
