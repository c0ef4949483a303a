#ifndef PELLUCID_ENGINE_DEVICE_WINDOW_H_
#define PELLUCID_ENGINE_DEVICE_WINDOW_H_

#include <algorithm>

#include "engine/writable_device.h"

namespace pellucid {

// A part of a device as a device of its own, such as the LUKS header in a qcow2
// file. Safe to call from many threads.
class DeviceWindow : public WritableDevice {
 public:
  // `device` is borrowed. Requires offset + size <= device.size().
  DeviceWindow(WritableDevice& device, uint64_t offset, uint64_t size)
      : device_(device), offset_(offset), size_(size) {}

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    device_.Read(offset_ + offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return device_.ExtentAt(offset_ + offset,
                            std::min(max_length, size_ - offset));
  }
  void Write(uint64_t offset, std::span<const std::byte> in) override {
    device_.Write(offset_ + offset, in);
  }
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override {
    device_.WriteZeroes(offset_ + offset, length, mode);
  }
  void Flush() override { device_.Flush(); }

 private:
  WritableDevice& device_;
  const uint64_t offset_;
  const uint64_t size_;
};

// The same of a device that is only read.
class WindowReader : public BlockDevice {
 public:
  WindowReader(BlockDevice& device, uint64_t offset, uint64_t size)
      : device_(device), offset_(offset), size_(size) {}

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    device_.Read(offset_ + offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return device_.ExtentAt(offset_ + offset,
                            std::min(max_length, size_ - offset));
  }

 private:
  BlockDevice& device_;
  const uint64_t offset_;
  const uint64_t size_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_DEVICE_WINDOW_H_
