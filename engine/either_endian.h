#ifndef PELLUCID_ENGINE_EITHER_ENDIAN_H_
#define PELLUCID_ENGINE_EITHER_ENDIAN_H_

#include <bit>
#include <concepts>
#include <cstddef>
#include <span>

#include "engine/big_endian.h"
#include "engine/little_endian.h"

namespace pellucid {

// A format that each machine writes in its own byte order. Loads as
// LoadBigEndian() does.
template <std::unsigned_integral T>
T LoadAs(std::endian order, std::span<const std::byte> bytes, size_t at) {
  return order == std::endian::big ? LoadBigEndian<T>(bytes, at)
                                   : LoadLittleEndian<T>(bytes, at);
}

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_EITHER_ENDIAN_H_
