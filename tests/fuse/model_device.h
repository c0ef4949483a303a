#ifndef PELLUCID_TESTS_FUSE_MODEL_DEVICE_H_
#define PELLUCID_TESTS_FUSE_MODEL_DEVICE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/block_device.h"

namespace pellucid::fuse {

struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;  // One past the last byte.
  bool Contains(uint64_t offset) const {
    return offset >= begin && offset < end;
  }
};

// A device of any size that needs no memory: a byte follows from its offset,
// except in holes, where it is 0. Can be told to fail.
class ModelDevice : public BlockDevice {
 public:
  // `holes` are in order and apart from each other.
  ModelDevice(uint64_t size, std::vector<ByteRange> holes)
      : size_(size), holes_(std::move(holes)) {}

  // Whoever reads or maps a byte of `range` gets what `fail` throws.
  void FailIn(ByteRange range, std::function<void()> fail) {
    failing_ = range;
    fail_ = std::move(fail);
  }

  std::byte ByteAt(uint64_t offset) const {
    return IsHole(offset) ? std::byte{0} : Pattern(offset);
  }

  bool IsHole(uint64_t offset) const {
    return std::any_of(
        holes_.begin(), holes_.end(),
        [&](const ByteRange& hole) { return hole.Contains(offset); });
  }

  uint64_t size() const override { return size_; }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    if (offset > size_ || out.size() > size_ - offset) {
      throw std::logic_error("a read past the end reached the device");
    }
    const uint64_t end = offset + out.size();
    FailIfTouched(offset, end);
    for (size_t i = 0; i < out.size(); ++i) out[i] = Pattern(offset + i);
    for (const ByteRange& hole : holes_) {
      const uint64_t begin = std::max(hole.begin, offset);
      const uint64_t stop = std::min(hole.end, end);
      if (begin < stop) {
        std::fill_n(out.begin() + static_cast<ptrdiff_t>(begin - offset),
                    stop - begin, std::byte{0});
      }
    }
  }

  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    if (offset >= size_ || max_length == 0) {
      throw std::logic_error("an extent past the end was asked for");
    }
    FailIfTouched(offset, offset + 1);
    uint64_t end = size_;
    bool is_hole = false;
    for (const ByteRange& hole : holes_) {
      if (hole.end <= offset) continue;
      is_hole = hole.begin <= offset;
      end = is_hole ? hole.end : hole.begin;
      break;
    }
    return {std::min(max_length, std::min(end, size_) - offset), is_hole};
  }

 private:
  // Never 0, and different in neighbouring pages and requests.
  static std::byte Pattern(uint64_t offset) {
    return static_cast<std::byte>(1 + (offset ^ (offset >> 9)) % 251);
  }

  void FailIfTouched(uint64_t begin, uint64_t end) const {
    if (fail_ && begin < failing_.end && end > failing_.begin) fail_();
  }

  const uint64_t size_;
  const std::vector<ByteRange> holes_;
  ByteRange failing_;
  std::function<void()> fail_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_MODEL_DEVICE_H_
