#ifndef PELLUCID_ENGINE_BORROWED_DEVICE_H_
#define PELLUCID_ENGINE_BORROWED_DEVICE_H_

#include "engine/writable_device.h"

namespace pellucid {

// A device that somebody else owns and that outlives this one, for a stack that
// wants its own. Safe to call from many threads, as the device itself.
class BorrowedDevice : public ResizableDevice {
 public:
  explicit BorrowedDevice(ResizableDevice& device) : device_(device) {}

  uint64_t size() const override { return device_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    device_.Read(offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return device_.ExtentAt(offset, max_length);
  }
  void Write(uint64_t offset, std::span<const std::byte> in) override {
    device_.Write(offset, in);
  }
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override {
    device_.WriteZeroes(offset, length, mode);
  }
  void Flush() override { device_.Flush(); }
  void Resize(uint64_t size) override { device_.Resize(size); }
  bool can_resize() const override { return device_.can_resize(); }
  void FreeSpace(uint64_t offset, uint64_t length) noexcept override {
    device_.FreeSpace(offset, length);
  }

 private:
  ResizableDevice& device_;
};

// The same for a device that is only read.
class BorrowedReader : public BlockDevice {
 public:
  explicit BorrowedReader(BlockDevice& device) : device_(device) {}

  uint64_t size() const override { return device_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    device_.Read(offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return device_.ExtentAt(offset, max_length);
  }

 private:
  BlockDevice& device_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_BORROWED_DEVICE_H_
