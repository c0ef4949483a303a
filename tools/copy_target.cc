#include "tools/copy_target.h"

#include <algorithm>

#include "engine/is_zero.h"

namespace pellucid::cli {
namespace {

// Less is not worth a request of its own.
constexpr size_t kZeroBlock = size_t{64} << 10;

}  // namespace

void WriteSparsely(CopyTarget& target, uint64_t offset,
                   std::span<const std::byte> bytes) {
  if (target.zeros() == ZeroHandling::kStore) {
    target.Write(offset, bytes);
    return;
  }
  size_t begin = 0;  // Of what has not been written, all data or all zeros.
  bool is_zero = false;
  const auto write_up_to = [&](size_t end) {
    if (begin == end) return;
    if (!is_zero) {
      target.Write(offset + begin, bytes.subspan(begin, end - begin));
    } else if (target.zeros() == ZeroHandling::kMark) {
      target.WriteZeros(offset + begin, end - begin);
    }
    begin = end;
  };
  size_t block = 0;
  for (size_t at = 0; at < bytes.size(); at += block) {
    block = static_cast<size_t>(std::min<uint64_t>(
        kZeroBlock - (offset + at) % kZeroBlock, bytes.size() - at));
    const bool zero = IsZero(bytes.subspan(at, block));
    if (zero != is_zero) write_up_to(at);
    is_zero = zero;
  }
  write_up_to(bytes.size());
}

}  // namespace pellucid::cli
