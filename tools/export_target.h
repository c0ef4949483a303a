#ifndef PELLUCID_TOOLS_EXPORT_TARGET_H_
#define PELLUCID_TOOLS_EXPORT_TARGET_H_

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "tools/copy_target.h"
#include "tools/file_descriptor.h"

namespace pellucid::cli {

struct ExportTargetOptions {
  std::string path;        // "-" is standard output.
  bool overwrite = false;  // May an existing file or a block device be written?
  bool sparse = true;      // Leave holes in a regular file.
};

// Throws UsageError if `options` do not allow to write what is at their path.
// Changes nothing.
void CheckExportTarget(const ExportTargetOptions& options);

// Where the plaintext goes: a regular file, a block device, or a stream (a
// pipe, a terminal, a character device) that takes bytes in their order only.
class ExportTarget : public CopyTarget {
 public:
  // Creates or opens the target and gives a regular file its length of `size`
  // bytes. Changes nothing if the target turns out to be one of `sources`, the
  // files that the plaintext comes from. Throws UsageError and IoError.
  ExportTarget(const ExportTargetOptions& options, uint64_t size,
               const std::vector<HostFileId>& sources);

  bool is_stream() const override { return kind_ == Kind::kStream; }
  ZeroHandling zeros() const override {
    return sparse_ ? ZeroHandling::kLeaveOut : ZeroHandling::kStore;
  }
  void Write(uint64_t offset, std::span<const std::byte> data) override;
  void WriteZeros(uint64_t offset, uint64_t length) override;

  // Which file it is.
  const HostFileId& id() const { return id_; }

  // Everything is written. Throws IoError.
  void Finish();

  // Something failed: removes the file if it was not there before.
  void Discard() noexcept;

 private:
  enum class Kind { kFile, kBlockDevice, kStream };

  void Prepare(uint64_t size, bool has_content);
  // Lets the kernel zero a part of a block device; false if it cannot.
  bool ZeroOnBlockDevice(uint64_t offset, uint64_t length);

  std::string name_;
  Kind kind_ = Kind::kStream;
  bool created_ = false;  // Set while file_ is initialised: keep it before.
  bool sparse_ = false;
  FileDescriptor file_;
  HostFileId id_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_EXPORT_TARGET_H_
