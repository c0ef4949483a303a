#ifndef PELLUCID_CRYPTO_BYTE_ORDER_H_
#define PELLUCID_CRYPTO_BYTE_ORDER_H_

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pellucid::crypto {

template <std::unsigned_integral T>
std::array<std::byte, sizeof(T)> LittleEndian(T value) {
  std::array<std::byte, sizeof(T)> bytes;
  for (size_t i = 0; i < sizeof(T); ++i) {
    bytes[i] = static_cast<std::byte>((value >> (8 * i)) & 0xff);
  }
  return bytes;
}

template <std::unsigned_integral T>
std::array<std::byte, sizeof(T)> BigEndian(T value) {
  std::array<std::byte, sizeof(T)> bytes;
  for (size_t i = 0; i < sizeof(T); ++i) {
    bytes[i] =
        static_cast<std::byte>((value >> (8 * (sizeof(T) - 1 - i))) & 0xff);
  }
  return bytes;
}

// The unsigned integer that starts at bytes[0].
template <std::unsigned_integral T>
T LoadBigEndian(std::span<const std::byte> bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value << 8 | std::to_integer<T>(bytes[i]));
  }
  return value;
}

template <std::unsigned_integral T>
T LoadLittleEndian(std::span<const std::byte> bytes) {
  T value = 0;
  for (size_t i = sizeof(T); i-- > 0;) {
    value = static_cast<T>(value << 8 | std::to_integer<T>(bytes[i]));
  }
  return value;
}

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_BYTE_ORDER_H_
