#include "crypto/random_bytes.h"

#include <sys/random.h>

#include <cerrno>
#include <system_error>

namespace pellucid::crypto {

void FillRandom(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t count = getrandom(out.data(), out.size(), 0);
    if (count < 0) {
      if (errno == EINTR) continue;
      throw std::system_error(errno, std::generic_category(), "getrandom");
    }
    out = out.subspan(static_cast<size_t>(count));
  }
}

}  // namespace pellucid::crypto
