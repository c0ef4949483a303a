#ifndef PELLUCID_ENGINE_QCOW2_REFCOUNT_ENTRIES_H_
#define PELLUCID_ENGINE_QCOW2_REFCOUNT_ENTRIES_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/big_endian.h"

namespace pellucid::qcow2 {

// Entries of refcount blocks, 1 << `order` bits wide ("Refcount block entry" in
// the specification). Those narrower than a byte begin at its least significant
// bit.

constexpr uint64_t GreatestRefcount(uint32_t order) {
  return order == 6 ? UINT64_MAX : (uint64_t{1} << (1U << order)) - 1;
}

// Entry `index` of `block`, which has it.
inline uint64_t LoadRefcount(std::span<const std::byte> block, uint64_t index,
                             uint32_t order) {
  switch (order) {
    case 3:
      return std::to_integer<uint64_t>(block[index]);
    case 4:
      return LoadBigEndian<uint16_t>(block, index * 2);
    case 5:
      return LoadBigEndian<uint32_t>(block, index * 4);
    case 6:
      return LoadBigEndian<uint64_t>(block, index * 8);
    default: {
      const uint64_t bit = index << order;
      return std::to_integer<uint64_t>(block[bit / 8]) >> (bit % 8) &
             GreatestRefcount(order);
    }
  }
}

// Requires value <= GreatestRefcount(order).
inline void StoreRefcount(std::span<std::byte> block, uint64_t index,
                          uint32_t order, uint64_t value) {
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(value);
      break;
    case 4:
      StoreBigEndian(block, index * 2, static_cast<uint16_t>(value));
      break;
    case 5:
      StoreBigEndian(block, index * 4, static_cast<uint32_t>(value));
      break;
    case 6:
      StoreBigEndian(block, index * 8, value);
      break;
    default: {
      const uint64_t bit = index << order;
      std::byte& byte = block[bit / 8];
      const uint64_t mask = GreatestRefcount(order) << (bit % 8);
      byte = static_cast<std::byte>((std::to_integer<uint64_t>(byte) & ~mask) |
                                    value << (bit % 8));
    }
  }
}

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_REFCOUNT_ENTRIES_H_
