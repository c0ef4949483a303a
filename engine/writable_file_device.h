#ifndef PELLUCID_ENGINE_WRITABLE_FILE_DEVICE_H_
#define PELLUCID_ENGINE_WRITABLE_FILE_DEVICE_H_

#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>

#include "engine/drop_behind.h"
#include "engine/host_file.h"
#include "engine/writable_device.h"
#include "engine/write_behind.h"

namespace pellucid {

// A host file or host block device, open for reading and writing and locked
// against everybody else as QEMU locks an image that it writes.
class WritableFileDevice : public ResizableDevice {
 public:
  // Throws IoError if the host refuses, ImageLocked if another program uses
  // the file in a way that does not tolerate a writer, UsageError for what is
  // neither a regular file nor a block device, and what `check` throws.
  static std::unique_ptr<WritableFileDevice> Open(
      const std::filesystem::path& file, const HostFileCheck& check = {});
  // Creates an empty file for its owner alone. Throws UsageError if there is
  // something of that name, and IoError. NewFile makes files that last.
  static std::unique_ptr<WritableFileDevice> Create(
      const std::filesystem::path& file);
  // Over the open `fd`, which it closes, also if it throws; `file` is
  // for messages. Throws as Open() does.
  static std::unique_ptr<WritableFileDevice> Adopt(
      int fd, const std::filesystem::path& file);
  ~WritableFileDevice() override;

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;
  void Write(uint64_t offset, std::span<const std::byte> in) override;
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override;
  // Once it has failed it fails for good: the host may have dropped what it
  // could not write, and would call the next flush a success all the same.
  void Flush() override;
  void Resize(uint64_t size) override;
  bool can_resize() const override { return S_ISREG(stat_.st_mode); }
  void FreeSpace(uint64_t offset, uint64_t length) noexcept override;

  const std::filesystem::path& file() const { return file_; }
  // As it was when the file was opened.
  const struct stat& host_stat() const { return stat_; }
  // As KeepsAccessTime() says.
  bool keeps_access_time() const;

 private:
  WritableFileDevice(std::filesystem::path file, int fd);

  const std::filesystem::path file_;
  const int fd_;
  DropBehind drop_behind_;
  struct stat stat_ = {};
  std::atomic<uint64_t> size_ = 0;
  // Held while the host flushes: it tells each failure to one caller only, and
  // the others would be told of a success.
  std::mutex flush_mutex_;
  int flush_errno_ = 0;  // Guarded by it; of the first flush that failed.
  WriteBehind write_behind_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_WRITABLE_FILE_DEVICE_H_
