#ifndef PELLUCID_ENGINE_BYTE_KIND_H_
#define PELLUCID_ENGINE_BYTE_KIND_H_

#include <cstddef>
#include <span>

namespace pellucid {

// What bytes look like to somebody who knows no format.
enum class ByteKind {
  kZeros,
  kText,    // Words, source, tables of text; also in UTF-16.
  kMixed,   // Anything else that has structure.
  kRandom,  // Compressed or encrypted: all bytes are equally frequent.
};
inline constexpr size_t kByteKinds = 4;

// How many bytes are judged at a time.
inline constexpr size_t kByteKindBlock = 4096;

// Of one block or a part of one, of at least 256 bytes or it is not told from
// noise. Safe to call from many threads.
ByteKind ByteKindOf(std::span<const std::byte> bytes);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_BYTE_KIND_H_
