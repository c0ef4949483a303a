#ifndef PELLUCID_ENGINE_QCOW2_TABLE_WORDS_H_
#define PELLUCID_ENGINE_QCOW2_TABLE_WORDS_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "engine/big_endian.h"
#include "engine/block_device.h"

namespace pellucid::qcow2 {

// Calls `each(byte, words)` for the table of 64-bit entries in [begin, end),
// piece by piece in host byte order; `byte` is where the piece begins. A piece
// has an even number of words unless it is the last. What is behind the end of
// the file reads as zeros. Requires whole words. Throws what `each` and
// BlockDevice::Read() throw.
template <typename Each>
void ForEachPiece(BlockDevice& file, uint64_t begin, uint64_t end,
                  Each&& each) {
  std::array<uint64_t, 512> buffer;
  while (begin < end) {
    const std::span words = std::span(buffer).first(
        std::min<uint64_t>((end - begin) / 8, buffer.size()));
    if (words.empty()) break;
    ReadZeroPadded(file, begin, std::as_writable_bytes(words));
    for (uint64_t& word : words) word = SwapBigEndian(word);
    each(begin, std::span<const uint64_t>(words));
    begin += words.size_bytes();
  }
}

// The same, but passes over holes of the file, of which a sparse one can have
// terabytes: for whoever does nothing about entries that are 0.
template <typename Each>
void ForEachStoredPiece(BlockDevice& file, uint64_t begin, uint64_t end,
                        Each&& each) {
  constexpr uint64_t kStep = 4096;
  end = std::min(end, file.size());
  while (begin < end) {
    const Extent extent = file.ExtentAt(begin, end - begin);
    if (extent.is_hole && extent.length >= kStep) {
      begin += extent.length / kStep * kStep;
      continue;
    }
    const uint64_t steps =
        extent.is_hole ? 1 : (extent.length + kStep - 1) / kStep;
    const uint64_t next = std::min(end, begin + steps * kStep);
    ForEachPiece(file, begin, next, each);
    begin = next;
  }
}

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_TABLE_WORDS_H_
