#ifndef PELLUCID_TESTS_FUSE_FAILING_DISK_H_
#define PELLUCID_TESTS_FUSE_FAILING_DISK_H_

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>

#include "engine/errors.h"
#include "engine/writable_device.h"

namespace pellucid::fuse {

// What a failing disk does, in memory that the test shares with the process
// that serves the disk.
class Faults {
 public:
  struct Place {
    std::atomic<uint64_t> begin = 0;
    std::atomic<uint64_t> end = 0;      // Nothing fails while this is 0.
    std::atomic<int> milliseconds = 0;  // Slow rather than failing, if not 0.
  };
  struct Settings {
    Place reads;
    Place writes;
  };

  Faults() {
    void* const memory = mmap(nullptr, sizeof(Settings), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("no memory to share");
    settings_ = new (memory) Settings;
  }
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;
  ~Faults() { munmap(settings_, sizeof(Settings)); }

  Settings& settings() { return *settings_; }

 private:
  Settings* settings_;
};

// A disk that fails, or is slow, where `faults` say so. Both are borrowed. As
// with a real one, what stands in front of the place has been transferred.
class FailingDisk : public WritableDevice {
 public:
  FailingDisk(std::span<std::byte> bytes, Faults& faults)
      : bytes_(bytes), faults_(faults) {}

  uint64_t size() const override { return bytes_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    Meet(faults_.settings().reads, offset, out.size());
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return {.length = std::min(max_length, size() - offset), .is_hole = false};
  }
  void Write(uint64_t offset, std::span<const std::byte> in) override {
    Meet(faults_.settings().writes, offset, in.size());
    std::memcpy(bytes_.data() + offset, in.data(), in.size());
  }
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode) override {
    Meet(faults_.settings().writes, offset, length);
    std::memset(bytes_.data() + offset, 0, length);
  }
  void Flush() override {}

 private:
  static void Meet(const Faults::Place& place, uint64_t offset,
                   uint64_t length) {
    if (offset >= place.end || offset + length <= place.begin) return;
    if (const int milliseconds = place.milliseconds; milliseconds != 0) {
      usleep(static_cast<useconds_t>(milliseconds) * 1000);
      return;
    }
    throw IoError(EIO, "the disk fails");
  }

  const std::span<std::byte> bytes_;
  Faults& faults_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_TESTS_FUSE_FAILING_DISK_H_
