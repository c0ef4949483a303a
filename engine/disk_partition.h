#ifndef PELLUCID_ENGINE_DISK_PARTITION_H_
#define PELLUCID_ENGINE_DISK_PARTITION_H_

#include <cstdint>
#include <memory>
#include <string>

#include "engine/partition_table.h"
#include "engine/writable_device.h"

namespace pellucid {

// The partition of `disk` with this number. Throws UsageError, which names
// `disk_name` and what numbers there are, if it has none or no table; and what
// disk.Read() throws.
Partition FindPartition(BlockDevice& disk, unsigned number,
                        const std::string& disk_name);

// A partition as a device of its own, which owns the disk. Safe to call from
// many threads.
class DiskPartition : public WritableDevice {
 public:
  // Requires the partition to lie within the disk.
  DiskPartition(std::unique_ptr<WritableDevice> disk,
                const Partition& partition);
  // Of a disk that is only read: Write(), WriteZeroes() and Flush() must not be
  // called.
  DiskPartition(std::unique_ptr<BlockDevice> disk, const Partition& partition);

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    disk_->Read(offset_ + offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;
  void Write(uint64_t offset, std::span<const std::byte> in) override {
    writable_disk_->Write(offset_ + offset, in);
  }
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override {
    writable_disk_->WriteZeroes(offset_ + offset, length, mode);
  }
  void Flush() override { writable_disk_->Flush(); }

 private:
  WritableDevice* const writable_disk_ = nullptr;  // disk_, or null.
  const std::unique_ptr<BlockDevice> disk_;
  const uint64_t offset_;
  const uint64_t size_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_DISK_PARTITION_H_
