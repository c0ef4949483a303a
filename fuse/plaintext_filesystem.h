#ifndef PELLUCID_FUSE_PLAINTEXT_FILESYSTEM_H_
#define PELLUCID_FUSE_PLAINTEXT_FILESYSTEM_H_

#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/writable_device.h"
#include "fuse/activity.h"
#include "fuse/allocation_count.h"
#include "fuse/directory_view.h"
#include "fuse/error_log.h"
#include "fuse/file_times.h"
#include "fuse/inode_keeper.h"
#include "fuse/mount_options.h"
#include "fuse/mounted_device.h"
#include "fuse/mountpoint.h"

namespace pellucid::fuse {

// The errno that an exception means to the kernel: EIO unless the host gave
// one.
int ReplyErrno(const std::exception& error);

// Answers the kernel's requests for one device: its bytes are a regular file,
// which is the root itself or `disk` in a root directory; what else is there is
// said by DirectoryView. The file's size never changes. The kernel may keep
// everything it has seen, because nobody else writes to an image while it is
// locked; if MountOptions say that somebody may, whoever opens the file reads
// it anew.
//
// Requests may come from many threads; no two of them ever wait for each other,
// except for what docs/architecture.md says of InodeKeeper, and the first looks
// at what DirectoryView shows.
class PlaintextFilesystem {
 public:
  // `device`, `log` and `times`, which a writable file shows, are borrowed.
  // `image` gives the directory its times, and the file its blocks until they
  // are counted. `keeper` is borrowed too, and null if the device cannot be
  // written.
  PlaintextFilesystem(const MountedDevice& device, const struct stat& image,
                      MountpointKind root, const MountOptions& options,
                      ErrorLog& log, FileTimes& times, InodeKeeper* keeper);

  // Starts a thread of its own; to be called once, before the session starts.
  void Start() { blocks_.Start(); }

  // The table to be given to fuse_session_new() together with `this`.
  static const fuse_lowlevel_ops& Operations();

  // Called once, by the thread that answers the kernel's first request. To be
  // set before the session starts; must not throw.
  void set_on_ready(std::function<void()> on_ready) {
    on_ready_ = std::move(on_ready);
  }

  // The session that the requests belong to; to be set before it starts.
  void set_session(fuse_session* session) { session_ = session; }

  // What the kernel tells whoever asks who serves the mount; to be set before
  // the session starts.
  void set_server_description(std::string text) {
    server_description_ = std::move(text);
  }

  // The errno of a write of the kernel's cached pages that failed, which drops
  // them, since the last FSYNC; or 0. Whoever calls fsync after such a failure
  // is told of it by the kernel.
  int lost_pages_errno() const { return lost_pages_errno_; }

  // Who has used the mount, and when.
  Activity& activity() { return activity_; }

  // Makes requests that take long give up.
  void Abandon() { abandoned_ = true; }

  // From now on nobody can open the file.
  void RefuseOpening() { refuses_opening_ = true; }

  // From now on a write to the kernel's cache fails, but for one that is just
  // being made: it holds the inode's lock. Not to be called by a request.
  void RefuseWriting();

  // Makes the kernel give up its cached pages of the file, which it sends first
  // where they have changed, and waits for that. Not to be called by a request.
  void DropKernelPages();

  // The requests; fuse_lowlevel.h says what each means. Each one replies to
  // `request` unless it throws.
  void Init(fuse_conn_info& connection);
  void Lookup(fuse_req_t request, fuse_ino_t parent, std::string_view name);
  // `file` is null unless the kernel asks on behalf of an open file.
  void GetAttr(fuse_req_t request, fuse_ino_t inode,
               const fuse_file_info* file);
  void SetAttr(fuse_req_t request, fuse_ino_t inode, const struct stat& wanted,
               int which);
  void ReadLink(fuse_req_t request, fuse_ino_t inode);
  void Open(fuse_req_t request, fuse_ino_t inode, fuse_file_info& file);
  void Release(fuse_req_t request, const fuse_file_info& file);
  void Read(fuse_req_t request, size_t size, uint64_t offset,
            const fuse_file_info& file);
  void Write(fuse_req_t request, std::span<const std::byte> in, uint64_t offset,
             const fuse_file_info& file);
  // The close of an open file, of which `file` tells what Open() has said.
  void Flush(fuse_req_t request, const fuse_file_info& file);
  void Fsync(fuse_req_t request);
  void Fallocate(fuse_req_t request, int mode, uint64_t offset,
                 uint64_t length);
  void Seek(fuse_req_t request, uint64_t offset, int whence,
            const fuse_file_info& file);
  void OpenDir(fuse_req_t request, fuse_file_info& file);
  void ReadDir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
               bool with_stat);
  void StatFs(fuse_req_t request);
  void GetXattr(fuse_req_t request, fuse_ino_t inode, std::string_view name,
                size_t size);

  // The errno boundary: replies with what the exception in flight means, and
  // logs it. `name` is the request's; `size` is 0 if it has none.
  void ReplyException(fuse_req_t request, const char* name, uint64_t offset,
                      uint64_t size) noexcept;

 private:
  // What the kernel repeats in requests on an open file: can it write? Or the
  // address of a DirectoryView::File.
  static constexpr uint64_t kReaderHandle = 0;
  static constexpr uint64_t kWriterHandle = 1;

  // How long the kernel may believe a count that is not complete.
  static constexpr double kEstimateTimeoutSeconds = 0.2;

  bool IsFile(fuse_ino_t inode) const { return inode == file_inode_; }
  // How long the kernel may believe names and attributes.
  double timeout_seconds() const;
  // The attributes of an inode and how long the kernel may believe them.
  fuse_entry_param Entry(fuse_ino_t inode);
  // The same for what the view shows but `disk`.
  fuse_entry_param ViewEntry(fuse_ino_t inode);
  // What all inodes have in common.
  fuse_entry_param BlankEntry(fuse_ino_t inode) const;
  // What is read by requests on an open file.
  BlockDevice& DeviceOf(const fuse_file_info& file);
  // The first place at or after `offset` that is a hole (or is none), its end
  // if there is no such place, nothing if the request was given up.
  std::optional<uint64_t> FindExtent(fuse_req_t request, BlockDevice& device,
                                     uint64_t offset, bool hole);

  // Writes within the device for a request on `file`.
  void WriteToDevice(uint64_t offset, std::span<const std::byte> in,
                     const fuse_file_info& file);
  // The data or what is stored of it is about to change.
  void NoteChange();
  // True if the answer to SEEK_HOLE and SEEK_DATA may have to come from pages
  // that the kernel has not written back and cannot be asked for.
  bool ExtentsAreUncertain();

  BlockDevice& device_;
  WritableDevice* const writable_;  // The same one; null if it only is read.
  const std::function<void()> report_deferred_error_;
  ErrorLog& log_;
  FileTimes& times_;
  InodeKeeper* const keeper_;
  fuse_session* session_ = nullptr;
  const struct stat image_;
  const fuse_ino_t file_inode_;
  const uint32_t max_read_;
  const uint32_t max_write_;
  const bool image_may_change_;
  const bool wants_kernel_writeback_;
  const uid_t uid_;
  const gid_t gid_;
  const mode_t file_permissions_;
  const mode_t view_permissions_;  // Of the files beside `disk`.
  const mode_t directory_permissions_;
  std::function<void()> on_ready_;
  std::string server_description_;
  std::atomic<bool> kernel_writeback_ = false;  // It is on; set by Init().
  std::atomic<unsigned> writers_ = 0;           // Open files that can write.
  std::atomic<bool> refuses_opening_ = false;
  std::atomic<bool> refuses_writing_ = false;
  std::atomic<bool> abandoned_ = false;
  std::atomic<int> lost_pages_errno_ = 0;
  AllocationCount blocks_;
  Activity activity_;
  // Null if the file is the root.
  const std::unique_ptr<DirectoryView> view_;
  AllocationCounts view_blocks_;  // After what it counts.
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_PLAINTEXT_FILESYSTEM_H_
