#ifndef PELLUCID_TESTS_TOOLS_INTERVAL_DEVICE_H_
#define PELLUCID_TESTS_TOOLS_INTERVAL_DEVICE_H_

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "engine/block_device.h"
#include "engine/errors.h"

namespace pellucid {

// A device of any size that has data in given intervals, computed from the
// offset, and holes between them. Counts what is asked of it. Safe to call from
// many threads once the intervals are added.
class IntervalDevice : public BlockDevice {
 public:
  explicit IntervalDevice(uint64_t size) : size_(size) {}

  void AddData(uint64_t begin, uint64_t end) { data_[begin] = end; }
  // Extents end at multiples of this, as if a table did.
  void CutExtentsAt(uint64_t multiple) { cut_ = multiple; }
  void FailReadsFrom(uint64_t offset) { bad_ = offset; }

  static std::byte ByteAt(uint64_t offset) {
    const uint64_t mixed = (offset / 8 + 1) * 0x9e3779b97f4a7c15;
    return static_cast<std::byte>(mixed >> (8 * (offset % 8)));
  }

  // What a copy of the range has to be.
  std::vector<std::byte> Content(uint64_t offset, size_t length) const {
    std::vector<std::byte> content(length);
    Fill(offset, content);
    return content;
  }

  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t lookups() const { return lookups_; }

  uint64_t size() const override { return size_; }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    if (offset + out.size() > bad_) throw IoError(EIO, "injected fault");
    bytes_read_ += out.size();
    Fill(offset, out);
  }

  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    ++lookups_;
    uint64_t end = DataEnd(offset);
    const bool is_hole = end == 0;
    if (is_hole) {
      const auto next = data_.upper_bound(offset);
      end = next == data_.end() ? size_ : next->first;
    }
    if (cut_ != 0) end = std::min(end, offset / cut_ * cut_ + cut_);
    return {.length = std::min(end - offset, max_length), .is_hole = is_hole};
  }

 private:
  void Fill(uint64_t offset, std::span<std::byte> out) const {
    std::ranges::fill(out, std::byte{0});
    for (const auto& [begin, end] : data_) {
      const uint64_t stop = std::min(end, offset + out.size());
      for (uint64_t at = std::max(begin, offset); at < stop; ++at) {
        out[at - offset] = ByteAt(at);
      }
    }
  }

  // Of the interval that holds `offset`; 0 if none does.
  uint64_t DataEnd(uint64_t offset) const {
    auto next = data_.upper_bound(offset);
    if (next == data_.begin()) return 0;
    --next;
    return offset < next->second ? next->second : 0;
  }

  const uint64_t size_;
  std::map<uint64_t, uint64_t> data_;
  uint64_t cut_ = 0;
  uint64_t bad_ = UINT64_MAX;
  std::atomic<uint64_t> bytes_read_{0};
  std::atomic<uint64_t> lookups_{0};
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_TOOLS_INTERVAL_DEVICE_H_
