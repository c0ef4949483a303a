#ifndef PELLUCID_ENGINE_BIG_ENDIAN_H_
#define PELLUCID_ENGINE_BIG_ENDIAN_H_

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>

namespace pellucid {

// Swaps between the host's byte order and big endian.
template <std::unsigned_integral T>
constexpr T SwapBigEndian(T value) {
  if constexpr (std::endian::native == std::endian::big || sizeof(T) == 1) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bswap32(value);
  } else {
    return __builtin_bswap64(value);
  }
}

// The big-endian number at bytes[at]. Requires at + sizeof(T) <= bytes.size().
template <std::unsigned_integral T>
T LoadBigEndian(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.subspan(at, sizeof(T)).data(), sizeof(T));
  return SwapBigEndian(value);
}

// Writes `value` at bytes[at]. Requires at + sizeof(T) <= bytes.size().
template <std::unsigned_integral T>
void StoreBigEndian(std::span<std::byte> bytes, size_t at, T value) {
  const T swapped = SwapBigEndian(value);
  std::memcpy(bytes.subspan(at, sizeof(T)).data(), &swapped, sizeof(T));
}

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_BIG_ENDIAN_H_
