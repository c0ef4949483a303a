#ifndef PELLUCID_TESTS_ENGINE_GROWING_MEMORY_DEVICE_H_
#define PELLUCID_TESTS_ENGINE_GROWING_MEMORY_DEVICE_H_

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/writable_device.h"

namespace pellucid {

// A host file in memory: a write behind the end moves it, a read there throws
// std::logic_error. To show what a layer above must not rely on, a request is
// carried out in steps of `step` bytes between which other threads come to
// their turn, so that a read meets a write half way. Safe to call from many
// threads.
class GrowingMemoryDevice : public ResizableDevice {
 public:
  explicit GrowingMemoryDevice(std::vector<std::byte> content,
                               size_t step = 64 << 10)
      : content_(std::move(content)), step_(step) {}

  // A copy of the content.
  std::vector<std::byte> bytes() const {
    std::shared_lock lock(mutex_);
    return content_;
  }
  uint64_t reads() const { return reads_; }
  uint64_t writes() const { return writes_; }
  uint64_t flushes() const { return flushes_; }

  // From now on the n-th of the next writes (0: the next one) throws IoError
  // and has stored half of its bytes.
  void FailWrite(uint64_t n) { fail_write_ = writes_ + n; }
  void FailFlushes(bool fail) { fail_flushes_ = fail; }

  uint64_t size() const override {
    std::shared_lock lock(mutex_);
    return content_.size();
  }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    ++reads_;
    InSteps(out.size(), [&](size_t at, size_t length) {
      std::shared_lock lock(mutex_);
      if (offset + at + length > content_.size()) {
        throw std::logic_error("read behind the end of the device");
      }
      std::copy_n(At(offset + at), length, out.begin() + Signed(at));
    });
  }

  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    std::shared_lock lock(mutex_);
    if (offset >= content_.size() || max_length == 0) {
      throw std::logic_error("ExtentAt() outside the device");
    }
    return {.length = std::min(max_length, content_.size() - offset),
            .is_hole = false};
  }

  void Write(uint64_t offset, std::span<const std::byte> in) override {
    const bool fail = writes_++ == fail_write_;
    if (fail) in = in.first(in.size() / 2);
    InSteps(in.size(), [&](size_t at, size_t length) {
      const std::unique_lock lock(mutex_);
      if (offset + at + length > content_.size()) {
        content_.resize(offset + at + length);
      }
      std::copy_n(in.begin() + Signed(at), length, At(offset + at));
    });
    if (fail) throw IoError(ENOSPC, "memory: injected fault");
  }

  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode) override {
    Write(offset, std::vector<std::byte>(length));
  }

  void Flush() override {
    if (fail_flushes_) throw IoError(EIO, "memory: injected fault");
    ++flushes_;
  }

  void Resize(uint64_t size) override {
    const std::unique_lock lock(mutex_);
    content_.resize(size);
  }

 private:
  static constexpr size_t kShort = 16 << 10;

  static ptrdiff_t Signed(uint64_t at) { return static_cast<ptrdiff_t>(at); }
  std::vector<std::byte>::iterator At(uint64_t offset) {
    return content_.begin() + Signed(offset);
  }

  template <typename Step>
  void InSteps(size_t size, Step step) {
    for (size_t at = 0; at < size; at += step_) {
      // Long requests would wait for other programs too often.
      if (size <= kShort && at / step_ % 8 == 7) std::this_thread::yield();
      step(at, std::min(step_, size - at));
    }
  }

  mutable std::shared_mutex mutex_;  // Of content_.
  std::vector<std::byte> content_;
  const size_t step_;
  std::atomic<uint64_t> reads_ = 0;
  std::atomic<uint64_t> writes_ = 0;
  std::atomic<uint64_t> flushes_ = 0;
  std::atomic<uint64_t> fail_write_ = UINT64_MAX;
  std::atomic<bool> fail_flushes_ = false;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_GROWING_MEMORY_DEVICE_H_
