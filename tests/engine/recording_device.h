#ifndef PELLUCID_TESTS_ENGINE_RECORDING_DEVICE_H_
#define PELLUCID_TESTS_ENGINE_RECORDING_DEVICE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/writable_device.h"

namespace pellucid {

// A device in memory that keeps every write and flush, so that a test can look
// at the disk as it would be after a power cut at any of them. Not
// synchronised.
class RecordingDevice : public WritableDevice {
 public:
  struct Event {
    uint64_t offset = 0;
    std::vector<std::byte> written;  // Empty: a flush.
  };

  explicit RecordingDevice(std::vector<std::byte> content)
      : content_(std::move(content)) {}

  const std::vector<std::byte>& bytes() const { return content_; }
  const std::vector<Event>& events() const { return events_; }

  // Forgets what happened: from now on the content is what it is.
  void Forget() { events_.clear(); }

  // The next reads of [begin, end) give other bytes than are there.
  void SpoilReads(uint64_t begin, uint64_t end) { spoiled_ = {begin, end}; }

  uint64_t size() const override { return content_.size(); }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    Check(offset, out.size());
    std::copy_n(content_.begin() + static_cast<ptrdiff_t>(offset), out.size(),
                out.begin());
    for (uint64_t i = 0; i < out.size(); ++i) {
      if (offset + i >= spoiled_.first && offset + i < spoiled_.second) {
        out[i] ^= std::byte{1};
      }
    }
  }

  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return {.length = std::min(max_length, content_.size() - offset),
            .is_hole = false};
  }

  void Write(uint64_t offset, std::span<const std::byte> in) override {
    Check(offset, in.size());
    std::ranges::copy(in, content_.begin() + static_cast<ptrdiff_t>(offset));
    events_.push_back({.offset = offset, .written = {in.begin(), in.end()}});
  }

  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode) override {
    Write(offset, std::vector<std::byte>(length));
  }
  void Flush() override { events_.push_back({}); }

 private:
  void Check(uint64_t offset, uint64_t length) const {
    if (offset > content_.size() || length > content_.size() - offset) {
      throw std::logic_error("access behind the end of the device");
    }
  }

  std::vector<std::byte> content_;
  std::vector<Event> events_;
  std::pair<uint64_t, uint64_t> spoiled_{0, 0};
};

// Calls `check` with a device as a power cut leaves it after each event, and
// within each write at sector borders: all of them in short writes, some in
// long ones. `before` is the content that the first event changed.
template <typename Check>
void AtEachPowerCut(const std::vector<std::byte>& before,
                    const std::vector<RecordingDevice::Event>& events,
                    Check check) {
  constexpr uint64_t kSector = 512;
  constexpr uint64_t kShort = 32 * kSector;
  std::vector<std::byte> disk = before;
  check(disk);
  for (const RecordingDevice::Event& event : events) {
    const uint64_t end = event.offset + event.written.size();
    const uint64_t step =
        event.written.size() <= kShort ? kSector : 61 * kSector;
    uint64_t at = event.offset;
    while (at < end) {
      const uint64_t next = std::min(
          end, at / kSector * kSector + (at == event.offset ? kSector : step));
      std::copy_n(
          event.written.begin() + static_cast<ptrdiff_t>(at - event.offset),
          next - at, disk.begin() + static_cast<ptrdiff_t>(at));
      at = next;
      check(disk);
    }
  }
}

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_RECORDING_DEVICE_H_
