#ifndef PELLUCID_TESTS_ENGINE_MEMORY_DEVICE_H_
#define PELLUCID_TESTS_ENGINE_MEMORY_DEVICE_H_

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/block_device.h"
#include "engine/errors.h"

namespace pellucid {

// A device whose content stands in memory. A read that breaks the promise of
// BlockDevice::Read() throws std::logic_error, so that a layer above that reads
// behind the end fails its test. Aligned blocks of zeros are holes if a block
// size is given. Safe to call from many threads, as long as none changes
// bytes().
class MemoryDevice : public BlockDevice {
 public:
  explicit MemoryDevice(std::vector<std::byte> content, uint64_t hole_block = 0)
      : content_(std::move(content)), hole_block_(hole_block) {}

  std::vector<std::byte>& bytes() { return content_; }

  // From now on every read that touches [begin, end) throws IoError.
  void FailReads(uint64_t begin, uint64_t end) {
    bad_begin_ = begin;
    bad_end_ = end;
  }
  // Calls of Read() until now, and the bytes that they asked for.
  uint64_t reads() const { return reads_; }
  uint64_t bytes_read() const { return bytes_read_; }

  uint64_t size() const override { return content_.size(); }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    if (offset > content_.size() || out.size() > content_.size() - offset) {
      throw std::logic_error("read of " + std::to_string(out.size()) +
                             " bytes at " + std::to_string(offset) +
                             ", behind the end of the device");
    }
    ++reads_;
    bytes_read_ += out.size();
    if (offset < bad_end_ && offset + out.size() > bad_begin_) {
      throw IoError(EIO, "memory: injected fault");
    }
    std::copy_n(content_.begin() + static_cast<ptrdiff_t>(offset), out.size(),
                out.begin());
  }

  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    if (offset >= content_.size() || max_length == 0) {
      throw std::logic_error("ExtentAt() outside the device");
    }
    const uint64_t rest = std::min(max_length, content_.size() - offset);
    if (hole_block_ == 0) return {.length = rest, .is_hole = false};
    const uint64_t in_block = offset % hole_block_;
    const uint64_t begin = offset - in_block;
    const uint64_t end =
        std::min<uint64_t>(begin + hole_block_, content_.size());
    const bool is_hole =
        std::all_of(content_.begin() + static_cast<ptrdiff_t>(begin),
                    content_.begin() + static_cast<ptrdiff_t>(end),
                    [](std::byte b) { return b == std::byte{0}; });
    return {.length = std::min(rest, end - offset), .is_hole = is_hole};
  }

 private:
  std::vector<std::byte> content_;
  const uint64_t hole_block_;
  std::atomic<uint64_t> bad_begin_{0};
  std::atomic<uint64_t> bad_end_{0};
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> bytes_read_{0};
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_MEMORY_DEVICE_H_
