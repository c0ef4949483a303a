#ifndef PELLUCID_FUSE_PLAINTEXT_FILESYSTEM_H_
#define PELLUCID_FUSE_PLAINTEXT_FILESYSTEM_H_

#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/block_device.h"
#include "fuse/allocation_count.h"
#include "fuse/error_log.h"
#include "fuse/mount_options.h"
#include "fuse/mountpoint.h"

namespace pellucid::fuse {

// Answers the kernel's requests for one device: its bytes are a regular file,
// which is the root itself or the only entry, `disk`, of a root directory.
// Nothing can be changed. The kernel may keep everything it has seen, because
// nobody writes to an image while it is locked; if MountOptions say that
// somebody may, whoever opens the file reads it anew.
//
// Requests may come from many threads; no two of them ever wait for each other.
class PlaintextFilesystem {
 public:
  // `device` and `log` are borrowed. `image` gives the file its times, and its
  // blocks until they are counted.
  PlaintextFilesystem(BlockDevice& device, const struct stat& image,
                      MountpointKind root, const MountOptions& options,
                      ErrorLog& log);

  // The table to be given to fuse_session_new() together with `this`.
  static const fuse_lowlevel_ops& Operations();

  // Called once, by the thread that answers the kernel's first request. To be
  // set before the session starts; must not throw.
  void set_on_ready(std::function<void()> on_ready) {
    on_ready_ = std::move(on_ready);
  }

  // Makes requests that take long give up.
  void Abandon() { abandoned_ = true; }

  // The requests; fuse_lowlevel.h says what each means. Each one replies to
  // `request` unless it throws.
  void Init(fuse_conn_info& connection);
  void Lookup(fuse_req_t request, fuse_ino_t parent, std::string_view name);
  void GetAttr(fuse_req_t request, fuse_ino_t inode);
  void Open(fuse_req_t request, fuse_ino_t inode, fuse_file_info& file);
  void Read(fuse_req_t request, size_t size, uint64_t offset);
  void Seek(fuse_req_t request, uint64_t offset, int whence);
  void OpenDir(fuse_req_t request, fuse_file_info& file);
  void ReadDir(fuse_req_t request, size_t size, off_t offset, bool with_stat);
  void StatFs(fuse_req_t request);
  void GetXattr(fuse_req_t request, fuse_ino_t inode, std::string_view name,
                size_t size);

  // The errno boundary: replies with what the exception in flight means, and
  // logs it. `name` is the request's; `size` is 0 if it has none.
  void ReplyException(fuse_req_t request, const char* name, uint64_t offset,
                      uint64_t size) noexcept;

 private:
  bool IsFile(fuse_ino_t inode) const { return inode == file_inode_; }
  // How long the kernel may believe names and attributes.
  double timeout_seconds() const;
  // The attributes of an inode and how long the kernel may believe them.
  fuse_entry_param Entry(fuse_ino_t inode);
  // The first place at or after `offset` that is a hole (or is none), size() if
  // there is no such place, nothing if the request was given up.
  std::optional<uint64_t> FindExtent(fuse_req_t request, uint64_t offset,
                                     bool hole);

  BlockDevice& device_;
  ErrorLog& log_;
  const struct stat image_;
  const fuse_ino_t file_inode_;
  const uint32_t max_read_;
  const bool image_may_change_;
  const uid_t uid_;
  const gid_t gid_;
  const mode_t file_permissions_;
  const mode_t directory_permissions_;
  std::function<void()> on_ready_;
  std::atomic<bool> abandoned_ = false;
  AllocationCount blocks_;
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_PLAINTEXT_FILESYSTEM_H_
