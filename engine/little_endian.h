#ifndef PELLUCID_ENGINE_LITTLE_ENDIAN_H_
#define PELLUCID_ENGINE_LITTLE_ENDIAN_H_

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pellucid {

// The little-endian number at bytes[at]. Requires
// at + sizeof(T) <= bytes.size().
template <std::unsigned_integral T>
T LoadLittleEndian(std::span<const std::byte> bytes, size_t at) {
  const std::span number = bytes.subspan(at, sizeof(T));
  uint64_t value = 0;
  for (size_t i = sizeof(T); i-- > 0;) {
    value = value << 8 | std::to_integer<uint64_t>(number[i]);
  }
  return static_cast<T>(value);
}

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_LITTLE_ENDIAN_H_
