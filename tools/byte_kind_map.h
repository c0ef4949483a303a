#ifndef PELLUCID_TOOLS_BYTE_KIND_MAP_H_
#define PELLUCID_TOOLS_BYTE_KIND_MAP_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/byte_kind.h"
#include "tools/cell_picture.h"
#include "tools/copy_target.h"

namespace pellucid::cli {

// Takes the bytes of a disk, as PlaintextCopy delivers them, and remembers what
// kind they are: zeros, text, noise or other, by cells of a picture. Safe to
// call from many threads, but for Picture().
class ByteKindMap : public CopyTarget {
 public:
  // As many cells as FormatMapAsSvg() has.
  explicit ByteKindMap(uint64_t size);

  bool is_stream() const override { return false; }
  ZeroHandling zeros() const override { return ZeroHandling::kLeaveOut; }
  void Write(uint64_t offset, std::span<const std::byte> data) override;
  void WriteZeros(uint64_t /*offset*/, uint64_t /*length*/) override {}

  CellPicture Picture() const;

 private:
  using Counts = std::array<std::atomic<uint64_t>, kByteKinds>;

  const uint64_t size_;
  const uint64_t cell_bytes_;
  std::vector<Counts> cells_;  // Bytes; zeros are not counted.
};

// Takes bytes and does nothing with them, for a copy that is only hashed.
class NoTarget : public CopyTarget {
 public:
  bool is_stream() const override { return false; }
  ZeroHandling zeros() const override { return ZeroHandling::kLeaveOut; }
  void Write(uint64_t /*offset*/,
             std::span<const std::byte> /*data*/) override {}
  void WriteZeros(uint64_t /*offset*/, uint64_t /*length*/) override {}
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_BYTE_KIND_MAP_H_
