#ifndef PELLUCID_ENGINE_FILE_DEVICE_H_
#define PELLUCID_ENGINE_FILE_DEVICE_H_

#include <sys/stat.h>

#include <filesystem>
#include <memory>

#include "engine/block_device.h"
#include "engine/drop_behind.h"
#include "engine/host_file.h"

namespace pellucid {

// A host file or host block device, open for reading only and locked as QEMU
// locks its images. Its access time stays as it was where the host allows
// that: for the owner, and for root.
class FileDevice : public BlockDevice {
 public:
  enum class Sharing {
    kExclusive,  // Refuse a file that another program writes.
    kForced,     // Read it all the same.
  };

  // Throws IoError if the host refuses, ImageLocked, UsageError for what is
  // neither a regular file nor a block device, and what `check` throws.
  static std::unique_ptr<FileDevice> Open(const std::filesystem::path& file,
                                          Sharing sharing,
                                          const HostFileCheck& check = {});
  ~FileDevice() override;

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;

  const std::filesystem::path& file() const { return file_; }
  // As it was when the file was opened.
  const struct stat& host_stat() const { return stat_; }
  // As KeepsAccessTime() says.
  bool keeps_access_time() const;

 private:
  FileDevice(std::filesystem::path file, int fd);

  const std::filesystem::path file_;
  const int fd_;
  DropBehind drop_behind_;
  struct stat stat_ = {};
  uint64_t size_ = 0;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_FILE_DEVICE_H_
