#ifndef PELLUCID_ENGINE_IS_ZERO_H_
#define PELLUCID_ENGINE_IS_ZERO_H_

#include <cstddef>
#include <cstring>
#include <span>

namespace pellucid {

// Is there no other byte in `bytes`?
inline bool IsZero(std::span<const std::byte> bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} &&
          std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_IS_ZERO_H_
