#include "crypto/stack_wipe.h"

#include <array>
#include <cstddef>

#include "crypto/secret_bytes.h"

namespace pellucid::crypto {

// Not inlined, so that its own frame lies where theirs were.
__attribute__((noinline)) void WipeStackBelow() {
  constexpr size_t kDeepestCall = 16 << 10;
  std::array<std::byte, kDeepestCall> frames;
  SecureWipe(frames);
}

}  // namespace pellucid::crypto
