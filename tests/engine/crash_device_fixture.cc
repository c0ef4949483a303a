#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "engine/errors.h"
#include "tests/engine/crash_device.h"

namespace pellucid {
namespace {

void ReadFrom(std::span<const std::byte> content, uint64_t offset,
              std::span<std::byte> out) {
  if (offset > content.size() || out.size() > content.size() - offset) {
    throw std::logic_error("read behind the end of the disk");
  }
  std::ranges::copy(content.subspan(offset, out.size()), out.begin());
}

}  // namespace

class CrashDisks::Device : public ResizableDevice {
 public:
  Device(CrashDisks& disks, size_t disk) : disks_(disks), disk_(disk) {}

  uint64_t size() const override {
    const std::lock_guard lock(disks_.mutex_);
    return content().size();
  }

  void Read(uint64_t offset, std::span<std::byte> out) override {
    const std::lock_guard lock(disks_.mutex_);
    ReadFrom(content(), offset, out);
  }

  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    const std::lock_guard lock(disks_.mutex_);
    return {.length = std::min(max_length, content().size() - offset),
            .is_hole = false};
  }

  void Write(uint64_t offset, std::span<const std::byte> in) override {
    const std::lock_guard lock(disks_.mutex_);
    int error = 0;
    const bool fails = disks_.FailsNow(error);
    // Whole sectors, as disks have it.
    if (fails) in = in.first(in.size() / 1024 * 512);
    if (!in.empty()) {
      Bytes& disk = content();
      if (offset + in.size() > disk.size()) disk.resize(offset + in.size());
      std::ranges::copy(in, disk.begin() + static_cast<ptrdiff_t>(offset));
      disks_.Record([&] {
        return DiskEvent{.disk = disk_,
                         .kind = DiskEvent::Kind::kWrite,
                         .offset = offset,
                         .length = in.size(),
                         .bytes = Bytes(in.begin(), in.end())};
      });
    }
    if (fails) throw IoError(error, "disk: injected fault of a write");
  }

  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode) override {
    const std::lock_guard lock(disks_.mutex_);
    ThrowIfFailing("zeroes");
    Zero(offset, length);
  }

  // An offer, whose failure nobody would be told of: it does not count.
  void FreeSpace(uint64_t offset, uint64_t length) noexcept override {
    const std::lock_guard lock(disks_.mutex_);
    Zero(offset, length);
  }

  void Resize(uint64_t size) override {
    const std::lock_guard lock(disks_.mutex_);
    ThrowIfFailing("a resize");
    content().resize(size);
    disks_.Record([&] {
      return DiskEvent{.disk = disk_,
                       .kind = DiskEvent::Kind::kResize,
                       .length = size,
                       .bytes = {}};
    });
  }

  void Flush() override {
    const std::lock_guard lock(disks_.mutex_);
    ThrowIfFailing("a flush");
    if (disks_.ignores_flushes_) return;
    disks_.Record([&] {
      return DiskEvent{
          .disk = disk_, .kind = DiskEvent::Kind::kFlush, .bytes = {}};
    });
  }

 private:
  // Requires disks_.mutex_.
  void Zero(uint64_t offset, uint64_t length) {
    Bytes& disk = content();
    if (offset > disk.size() || length > disk.size() - offset) {
      throw std::logic_error("zeroes behind the end of the disk");
    }
    std::fill_n(disk.begin() + static_cast<ptrdiff_t>(offset), length,
                std::byte{0});
    disks_.Record([&] {
      return DiskEvent{.disk = disk_,
                       .kind = DiskEvent::Kind::kZeroes,
                       .offset = offset,
                       .length = length,
                       .bytes = {}};
    });
  }

  Bytes& content() const { return disks_.contents_[disk_]; }

  void ThrowIfFailing(const char* what) {
    int error = 0;
    if (!disks_.FailsNow(error)) return;
    throw IoError(error, std::string("disk: injected fault of ") + what);
  }

  CrashDisks& disks_;
  const size_t disk_;
};

CrashDisks::CrashDisks(std::vector<Bytes> contents)
    : initial_(contents), contents_(std::move(contents)) {}

std::unique_ptr<ResizableDevice> CrashDisks::Open(size_t disk) {
  return std::make_unique<Device>(*this, disk);
}

void CrashDisks::FailChanges(uint64_t n, uint64_t count, int error) {
  const std::lock_guard lock(mutex_);
  first_failure_ = changes_ + n;
  last_failure_ = first_failure_ + count;
  error_ = error;
  failures_ = 0;
}

uint64_t CrashDisks::StopFailing() {
  const std::lock_guard lock(mutex_);
  first_failure_ = UINT64_MAX;
  return failures_;
}

uint64_t CrashDisks::changes() const {
  const std::lock_guard lock(mutex_);
  return changes_;
}

size_t CrashDisks::position() const {
  const std::lock_guard lock(mutex_);
  return events_.size();
}

bool CrashDisks::FailsNow(int& error) {
  const uint64_t change = changes_++;
  error = error_;
  const bool fails = change >= first_failure_ && change < last_failure_;
  if (fails) ++failures_;
  return fails;
}

void CrashDisks::IgnoreFlushes() {
  const std::lock_guard lock(mutex_);
  ignores_flushes_ = true;
}

void CrashDisks::StopRecording() {
  const std::lock_guard lock(mutex_);
  recording_ = false;
}

void BorrowedDisk::Read(uint64_t offset, std::span<std::byte> out) {
  ReadFrom(content_, offset, out);
}

Extent BorrowedDisk::ExtentAt(uint64_t offset, uint64_t max_length) {
  return {.length = std::min(max_length, content_.size() - offset),
          .is_hole = false};
}

}  // namespace pellucid
