#ifndef PELLUCID_TESTS_ENGINE_CRASH_DEVICE_H_
#define PELLUCID_TESTS_ENGINE_CRASH_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/writable_device.h"
#include "tests/engine/host_files_fixture.h"

namespace pellucid {

// What was asked of a disk, in the order in which it took effect.
struct DiskEvent {
  enum class Kind { kWrite, kZeroes, kResize, kFlush };
  size_t disk = 0;
  Kind kind = Kind::kFlush;
  uint64_t offset = 0;
  uint64_t length = 0;  // kResize: the new size.
  Bytes bytes;          // kWrite.
};

// Disks in memory that keep a common record of what was written to them, so
// that a test can look at them as a power cut leaves them (crash_points.h), and
// that fail when told to. Outlives the devices that Open() gives. Safe to call
// from many threads.
class CrashDisks {
 public:
  explicit CrashDisks(std::vector<Bytes> contents);
  explicit CrashDisks(Bytes content)
      : CrashDisks(std::vector<Bytes>{std::move(content)}) {}

  // Another way to the same disk. A read or a zeroing that breaks the promises
  // of its interface throws std::logic_error.
  std::unique_ptr<ResizableDevice> Open(size_t disk = 0);

  // Of the `count` changes (writes, zeroes, resizes, flushes) that come behind
  // the next `n`, each throws IoError with `error`. What a failed write leaves
  // is the front half of its sectors; a failed flush is no barrier.
  void FailChanges(uint64_t n, uint64_t count, int error);
  // No more failures. Gives how many there were.
  uint64_t StopFailing();
  // Changes until now, failed ones too.
  uint64_t changes() const;

  // From now on flushes do nothing and succeed, as on a disk that lies.
  void IgnoreFlushes();

  // Events until now.
  size_t position() const;

  // From now on no event is kept, which long tests have no memory for.
  void StopRecording();

  // Not while anything writes.
  const std::vector<Bytes>& initial() const { return initial_; }
  const std::vector<Bytes>& contents() const { return contents_; }
  const std::vector<DiskEvent>& events() const { return events_; }

 private:
  class Device;

  // True if this change has to fail with `error`.
  bool FailsNow(int& error);
  template <typename MakeEvent>
  void Record(MakeEvent make_event) {
    if (recording_) events_.push_back(make_event());
  }

  const std::vector<Bytes> initial_;
  mutable std::mutex mutex_;
  std::vector<Bytes> contents_;
  std::vector<DiskEvent> events_;
  bool recording_ = true;
  bool ignores_flushes_ = false;
  uint64_t changes_ = 0;
  uint64_t first_failure_ = UINT64_MAX;
  uint64_t last_failure_ = 0;
  int error_ = 0;
  uint64_t failures_ = 0;
};

// A disk that somebody else holds, to read from.
class BorrowedDisk : public BlockDevice {
 public:
  explicit BorrowedDisk(std::span<const std::byte> content)
      : content_(content) {}
  uint64_t size() const override { return content_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;

 private:
  const std::span<const std::byte> content_;
};

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_CRASH_DEVICE_H_
