#ifndef PELLUCID_ENGINE_LAYER_FILE_H_
#define PELLUCID_ENGINE_LAYER_FILE_H_

#include <sys/stat.h>

#include <filesystem>
#include <memory>

#include "engine/file_device.h"
#include "engine/host_file.h"
#include "engine/writable_file_device.h"

namespace pellucid {

enum class FileAccess {
  kRead,        // Locked against writers.
  kReadShared,  // Read although another program may write.
  kWrite,       // Locked against everybody who minds a writer.
};

// A host file that a layer of an image is made of, open for reading or for
// writing. One of the two devices is null; both are until it is opened.
struct LayerFile {
  std::unique_ptr<FileDevice> read_only;
  std::unique_ptr<WritableFileDevice> writable;

  // Throws as FileDevice::Open() and WritableFileDevice::Open() do; what keeps
  // a file from being written but not from being read names --read-only.
  static LayerFile Open(const std::filesystem::path& file, FileAccess access,
                        const HostFileCheck& check = {});

  explicit operator bool() const { return read_only || writable; }

  // Require an open file.
  BlockDevice& device() const;
  const struct stat& host_stat() const;
  bool keeps_access_time() const;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_LAYER_FILE_H_
