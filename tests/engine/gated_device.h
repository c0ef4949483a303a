#ifndef PELLUCID_TESTS_ENGINE_GATED_DEVICE_H_
#define PELLUCID_TESTS_ENGINE_GATED_DEVICE_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "engine/writable_device.h"

namespace pellucid {

// Holds requests of another device up: reads or writes that touch a byte, in
// front of what they do, until they are let through. Safe to call from many
// threads.
class GatedDevice : public ResizableDevice {
 public:
  enum class Kind { kRead, kWrite };

  explicit GatedDevice(std::unique_ptr<ResizableDevice> device)
      : device_(std::move(device)) {}

  // The next request of that kind that touches `byte` stops, and only that.
  void StopAt(Kind kind, uint64_t byte) {
    const std::lock_guard lock(mutex_);
    kind_ = kind;
    byte_ = byte;
    is_armed_ = true;
  }
  void AwaitStopped() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_stopped_; });
  }
  void LetThrough() {
    const std::lock_guard lock(mutex_);
    is_stopped_ = false;
    changed_.notify_all();
  }

  uint64_t size() const override { return device_->size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    Pass(Kind::kRead, offset, out.size());
    device_->Read(offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return device_->ExtentAt(offset, max_length);
  }
  void Write(uint64_t offset, std::span<const std::byte> in) override {
    Pass(Kind::kWrite, offset, in.size());
    device_->Write(offset, in);
  }
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override {
    device_->WriteZeroes(offset, length, mode);
  }
  void Flush() override { device_->Flush(); }
  void Resize(uint64_t size) override { device_->Resize(size); }

 private:
  void Pass(Kind kind, uint64_t offset, uint64_t length) {
    std::unique_lock lock(mutex_);
    if (!is_armed_ || kind != kind_ || byte_ < offset ||
        byte_ >= offset + length) {
      return;
    }
    is_armed_ = false;
    is_stopped_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !is_stopped_; });
  }

  const std::unique_ptr<ResizableDevice> device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Kind kind_ = Kind::kRead;
  uint64_t byte_ = 0;
  bool is_armed_ = false;
  bool is_stopped_ = false;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_GATED_DEVICE_H_
