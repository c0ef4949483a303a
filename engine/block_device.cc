#include "engine/block_device.h"

#include <algorithm>

namespace pellucid {

void ReadZeroPadded(BlockDevice& device, uint64_t offset,
                    std::span<std::byte> out) {
  const uint64_t size = device.size();
  const size_t stored =
      offset < size ? std::min<uint64_t>(out.size(), size - offset) : 0;
  if (stored != 0) device.Read(offset, out.first(stored));
  std::ranges::fill(out.subspan(stored), std::byte{0});
}

}  // namespace pellucid
