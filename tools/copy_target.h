#ifndef PELLUCID_TOOLS_COPY_TARGET_H_
#define PELLUCID_TOOLS_COPY_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace pellucid::cli {

// What a target wants of zeros, whether they are holes in the source or stored
// there.
enum class ZeroHandling {
  kStore,     // Bytes like others; holes come by WriteZeros().
  kLeaveOut,  // Nothing: ranges that nobody writes read as zeros.
  kMark,      // Longer runs by WriteZeros(), which is cheaper than Write().
};

// Where a copy goes.
class CopyTarget {
 public:
  CopyTarget() = default;
  CopyTarget(const CopyTarget&) = delete;
  CopyTarget& operator=(const CopyTarget&) = delete;
  virtual ~CopyTarget() = default;

  // Must data come in order, from one thread at a time?
  virtual bool is_stream() const = 0;
  virtual ZeroHandling zeros() const = 0;

  // Writes at `offset`; a stream takes no notice of it. Throws IoError and what
  // else the target can fail with. Safe to call from many threads unless
  // is_stream().
  virtual void Write(uint64_t offset, std::span<const std::byte> data) = 0;
  virtual void WriteZeros(uint64_t offset, uint64_t length) = 0;
};

// Writes `bytes`, but blocks of zeros as target.zeros() wants them. Such blocks
// end at multiples of their size in the target; shorter runs are not worth a
// request of their own.
void WriteSparsely(CopyTarget& target, uint64_t offset,
                   std::span<const std::byte> bytes);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_COPY_TARGET_H_
