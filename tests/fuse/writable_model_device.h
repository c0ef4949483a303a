#ifndef PELLUCID_TESTS_FUSE_WRITABLE_MODEL_DEVICE_H_
#define PELLUCID_TESTS_FUSE_WRITABLE_MODEL_DEVICE_H_

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <span>
#include <stdexcept>
#include <thread>

#include "engine/errors.h"
#include "engine/writable_device.h"

namespace pellucid::fuse {

// The bytes of a writable device and what happened to it, in memory that the
// test shares with the process that serves the mount.
class SharedDisk {
 public:
  struct Journal {
    std::atomic<uint64_t> writes;
    std::atomic<uint64_t> bytes_written;
    std::atomic<uint64_t> flushes;
    std::atomic<uint64_t> writes_since_flush;
    // Settings: made by the test at any time.
    std::atomic<int> write_errno;  // 0: succeed.
    std::atomic<int> flush_errno;
    std::atomic<int> next_flush_errno;  // Of one flush, when it ends.
    std::atomic<uint64_t> good_flushes;  // That many succeed all the same.
    std::atomic<int> flush_milliseconds;
  };
  static constexpr uint64_t kBlock = 4096;

  explicit SharedDisk(uint64_t size)
      : size_(size),
        blocks_((size + kBlock - 1) / kBlock),
        length_(sizeof(Journal) + blocks_ + size) {
    memory_ = mmap(nullptr, length_, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) throw std::runtime_error("no memory to share");
  }
  SharedDisk(const SharedDisk&) = delete;
  SharedDisk& operator=(const SharedDisk&) = delete;
  ~SharedDisk() { munmap(memory_, length_); }

  Journal& journal() { return *static_cast<Journal*>(memory_); }
  // One byte for each block: is it stored?
  std::span<std::byte> stored() {
    return {static_cast<std::byte*>(memory_) + sizeof(Journal), blocks_};
  }
  std::span<std::byte> bytes() {
    return {static_cast<std::byte*>(memory_) + sizeof(Journal) + blocks_,
            size_};
  }

 private:
  const uint64_t size_;
  const uint64_t blocks_;
  const size_t length_;
  void* memory_;
};

// A writable device in a SharedDisk, which is borrowed: a block that was never
// written is a hole.
class WritableModelDevice : public WritableDevice {
 public:
  explicit WritableModelDevice(SharedDisk& disk) : disk_(disk) {}

  uint64_t size() const override { return disk_.bytes().size(); }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    const std::scoped_lock lock(mutex_);
    const auto from = Range(offset, out.size());
    if (!out.empty()) std::memcpy(out.data(), from.data(), out.size());
  }

  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    if (offset >= size() || max_length == 0) {
      throw std::logic_error("an extent past the end was asked for");
    }
    const std::scoped_lock lock(mutex_);
    const auto stored = disk_.stored();
    const bool is_stored = stored[offset / kBlock] != std::byte{0};
    uint64_t end = offset / kBlock;
    while (end < stored.size() &&
           end * kBlock - offset / kBlock * kBlock <= max_length &&
           (stored[end] != std::byte{0}) == is_stored) {
      ++end;
    }
    const uint64_t stop = std::min(end * kBlock, size());
    return {std::min(max_length, stop - offset), !is_stored};
  }

  void Write(uint64_t offset, std::span<const std::byte> in) override {
    const std::scoped_lock lock(mutex_);
    const auto to = Range(offset, in.size());
    Fail(disk_.journal().write_errno, "model: write");
    if (!in.empty()) std::memcpy(to.data(), in.data(), in.size());
    Store(offset, in.size());
    ++disk_.journal().writes;
    disk_.journal().bytes_written += in.size();
    ++disk_.journal().writes_since_flush;
  }

  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override {
    const std::scoped_lock lock(mutex_);
    const auto to = Range(offset, length);
    Fail(disk_.journal().write_errno, "model: write of zeros");
    std::memset(to.data(), 0, to.size());
    if (mode == ZeroMode::kKeepSpace) {
      Store(offset, length);
    } else {
      const uint64_t first = (offset + kBlock - 1) / kBlock;
      const uint64_t end = offset + length == size()
                               ? disk_.stored().size()
                               : (offset + length) / kBlock;
      for (uint64_t i = first; i < end; ++i) disk_.stored()[i] = std::byte{0};
    }
    ++disk_.journal().writes_since_flush;
  }

  void Flush() override {
    const uint64_t covered = disk_.journal().writes_since_flush;
    std::this_thread::sleep_for(
        std::chrono::milliseconds(disk_.journal().flush_milliseconds));
    Fail(disk_.journal().next_flush_errno.exchange(0), "model: one flush");
    if (disk_.journal().flushes >= disk_.journal().good_flushes) {
      Fail(disk_.journal().flush_errno, "model: flush");
    }
    ++disk_.journal().flushes;
    disk_.journal().writes_since_flush -= covered;
  }

 private:
  static constexpr uint64_t kBlock = SharedDisk::kBlock;

  std::span<std::byte> Range(uint64_t offset, uint64_t length) const {
    if (offset > size() || length > size() - offset) {
      throw std::logic_error("an access past the end reached the device");
    }
    return disk_.bytes().subspan(offset, length);
  }
  static void Fail(int error, const char* what) {
    if (error != 0) throw IoError(error, what);
  }
  void Store(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    for (uint64_t i = offset / kBlock; i <= (offset + length - 1) / kBlock;
         ++i) {
      disk_.stored()[i] = std::byte{1};
    }
  }

  SharedDisk& disk_;
  std::mutex mutex_;  // One request at a time touches the bytes.
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_WRITABLE_MODEL_DEVICE_H_
