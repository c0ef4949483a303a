#ifndef PELLUCID_TESTS_CRYPTO_TEST_BYTES_H_
#define PELLUCID_TESTS_CRYPTO_TEST_BYTES_H_

#include <fmt/format.h>

#include <cstddef>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::crypto {

using Bytes = std::vector<std::byte>;

inline std::string ToHex(std::span<const std::byte> bytes) {
  std::string hex;
  for (const std::byte b : bytes) {
    hex += fmt::format("{:02x}", std::to_integer<unsigned>(b));
  }
  return hex;
}

// The bytes that `hex` spells; blanks between them are skipped.
inline Bytes FromHex(std::string_view hex) {
  Bytes bytes;
  std::string digits;
  for (const char c : hex) {
    if (c == ' ') continue;
    digits += c;
    if (digits.size() < 2) continue;
    bytes.push_back(static_cast<std::byte>(std::stoi(digits, nullptr, 16)));
    digits.clear();
  }
  if (!digits.empty()) throw std::invalid_argument("odd number of hex digits");
  return bytes;
}

inline std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// The same bytes for the same seed, in every run.
inline Bytes RandomBytes(size_t size, unsigned seed) {
  std::mt19937 generator(seed);
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(generator() & 0xff);
  return bytes;
}

// What reference_vectors.py encrypts and merges.
inline Bytes PatternBytes(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>((i * 7 + i / 256) & 0xff);
  }
  return bytes;
}

}  // namespace pellucid::crypto

#endif  // PELLUCID_TESTS_CRYPTO_TEST_BYTES_H_
