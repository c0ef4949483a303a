#include "fuse/plaintext_filesystem.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <string>

#include "engine/errors.h"
#include "fuse/init_reply.h"
#include "fuse/kernel_limits.h"
#include "fuse/mount_table.h"
#include "fuse/read_buffer.h"

namespace pellucid::fuse {
namespace {

constexpr fuse_ino_t kRootInode = DirectoryView::kRootInode;
constexpr fuse_ino_t kDiskInode = DirectoryView::kDiskInode;

constexpr blksize_t kBlockSize = 4096;
// "For ever": nothing here changes before the unmount.
constexpr double kFinalTimeoutSeconds = 30 * 24 * 3600;
// For images that somebody else may be writing to.
constexpr double kChangingTimeoutSeconds = 1;
// The attributes of a file that can be written: its blocks and times move.
constexpr double kWritableTimeoutSeconds = 1;

// Direct reads and read-ahead beyond this many requests wait in the kernel. The
// default of 12 would be 3 MiB, less than one large read.
constexpr unsigned kMaxBackgroundRequests = 128;
constexpr unsigned kCongestionThreshold = kMaxBackgroundRequests * 3 / 4;

// Bounds the time that one question about extents takes.
constexpr uint64_t kGreatestExtentStep = uint64_t{64} << 30;
// libfuse takes a lock to tell whether a request was interrupted.
constexpr unsigned kExtentsBetweenInterruptChecks = 64;

mode_t Permissions(mode_t all, mode_t owner_only, const MountOptions& options) {
  if (options.umask) return all & ~*options.umask;
  return options.allow_other ? all : owner_only;
}

}  // namespace

// The kernel takes ENOSYS to mean that the request can never work and would not
// ask again.
int ReplyErrno(const std::exception& error) {
  const auto* const io_error = dynamic_cast<const IoError*>(&error);
  const int host_errno = io_error == nullptr ? EIO : io_error->host_errno();
  const bool is_usable =
      host_errno > 0 && host_errno != ENOSYS && host_errno != EINTR;
  return is_usable ? host_errno : EIO;
}

PlaintextFilesystem::PlaintextFilesystem(const MountedDevice& device,
                                         const struct stat& image,
                                         MountpointKind root,
                                         const MountOptions& options,
                                         ErrorLog& log, FileTimes& times,
                                         InodeKeeper* keeper)
    : device_(*device.device),
      writable_(device.writable),
      report_deferred_error_(device.report_deferred_error),
      log_(log),
      times_(times),
      keeper_(keeper),
      image_(image),
      file_inode_(root == MountpointKind::kFile ? kRootInode : kDiskInode),
      max_read_(options.max_read),
      max_write_(options.max_write),
      image_may_change_(options.image_may_change),
      // What the kernel keeps for itself must be true.
      wants_kernel_writeback_(writable_ != nullptr &&
                              options.kernel_writeback &&
                              !options.image_may_change),
      uid_(options.uid.value_or(getuid())),
      gid_(options.gid.value_or(getgid())),
      file_permissions_(writable_ != nullptr
                            ? Permissions(0644, 0600, options)
                            : Permissions(0444, 0400, options)),
      view_permissions_(Permissions(0444, 0400, options)),
      directory_permissions_(Permissions(0555, 0500, options)),
      blocks_(device_, static_cast<uint64_t>(image.st_blocks)),
      view_(root == MountpointKind::kFile
                ? nullptr
                : std::make_unique<DirectoryView>(
                      // The pages that the kernel keeps of a partition would
                      // know nothing of what is written to the disk.
                      device_, /*has_partitions=*/writable_ == nullptr,
                      device.snapshots.get(), image.st_mtim, log)) {}

void PlaintextFilesystem::Init(fuse_conn_info& connection) {
  const auto want = [&](unsigned capabilities) {
    connection.want |= connection.capable & capabilities;
  };
  want(FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS |
       FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
       FUSE_CAP_EXPLICIT_INVAL_DATA);
  // What was just decrypted lies in memory that splice() would only copy.
  connection.want &=
      ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ |
                             FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  connection.max_read = max_read_;
  connection.max_readahead = kReadAheadBytes;
  if (writable_ != nullptr) {
    connection.max_write = std::min(connection.max_write, max_write_);
    // Then the kernel would take an open with O_TRUNC for done: forget what it
    // has not written back yet, and take the file for empty.
    connection.want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC);
    if (wants_kernel_writeback_) want(FUSE_CAP_WRITEBACK_CACHE);
    kernel_writeback_ = (connection.want & FUSE_CAP_WRITEBACK_CACHE) != 0;
    keeper_->set_kernel_writeback(kernel_writeback_);
    ExpectInitReply();
  }
  connection.max_background = kMaxBackgroundRequests;
  connection.congestion_threshold = kCongestionThreshold;
  if (on_ready_) on_ready_();
}

double PlaintextFilesystem::timeout_seconds() const {
  return image_may_change_ ? kChangingTimeoutSeconds : kFinalTimeoutSeconds;
}

fuse_entry_param PlaintextFilesystem::BlankEntry(fuse_ino_t inode) const {
  fuse_entry_param entry = {};
  entry.ino = inode;
  entry.entry_timeout = timeout_seconds();
  entry.attr_timeout = timeout_seconds();
  struct stat& attributes = entry.attr;
  attributes.st_ino = inode;
  attributes.st_uid = uid_;
  attributes.st_gid = gid_;
  attributes.st_blksize = kBlockSize;
  attributes.st_atim = image_.st_atim;
  attributes.st_mtim = image_.st_mtim;
  attributes.st_ctim = image_.st_ctim;
  return entry;
}

fuse_entry_param PlaintextFilesystem::Entry(fuse_ino_t inode) {
  if (!IsFile(inode)) return ViewEntry(inode);
  fuse_entry_param entry = BlankEntry(inode);
  struct stat& attributes = entry.attr;
  attributes.st_mode = S_IFREG | file_permissions_;
  attributes.st_nlink = 1;
  if (writable_ != nullptr) {
    attributes.st_atim = times_.accessed();
    attributes.st_mtim = times_.modified();
    attributes.st_ctim = times_.changed();
    entry.attr_timeout = std::min(entry.attr_timeout, kWritableTimeoutSeconds);
    // Whoever asks must not make them valid for the writers.
    if (refuses_writing_) entry.attr_timeout = 0;
    if (!keeper_->is_prepared()) {
      // Whatever the options make of the owner and the mode, the keeper must
      // get at the file. Nobody else is told yet that it is there.
      attributes.st_mode = S_IFREG | 0600;
      attributes.st_uid = getuid();
      attributes.st_gid = getgid();
      entry.attr_timeout = 0;
    }
  }
  attributes.st_size = static_cast<off_t>(device_.size());
  const AllocationCount::Figure blocks = blocks_.Get();
  attributes.st_blocks = static_cast<blkcnt_t>(blocks.blocks);
  if (!blocks.is_final) {
    entry.attr_timeout = std::min(entry.attr_timeout, kEstimateTimeoutSeconds);
  }
  return entry;
}

void PlaintextFilesystem::GetAttr(fuse_req_t request, fuse_ino_t inode,
                                  const fuse_file_info* file) {
  // Before each write to its cache the kernel asks for the attributes once
  // these have become invalid, and this is the way to make the write fail.
  if (file != nullptr && file->fh == kWriterHandle && keeper_ != nullptr) {
    if (refuses_writing_) {
      fuse_reply_err(request, ENODEV);
      return;
    }
    if (keeper_->size_is_wrong()) {
      fuse_reply_err(request, ENOSPC);
      return;
    }
  }
  const fuse_entry_param entry = Entry(inode);
  fuse_reply_attr(request, &entry.attr, entry.attr_timeout);
}

void PlaintextFilesystem::Open(fuse_req_t request, fuse_ino_t inode,
                               fuse_file_info& file) {
  const bool is_in_view = !IsFile(inode);
  if (is_in_view && DirectoryView::TypeOf(inode) != S_IFREG) {
    fuse_reply_err(request, EISDIR);
    return;
  }
  const bool is_for_writing =
      (file.flags & O_ACCMODE) != O_RDONLY || (file.flags & O_TRUNC) != 0;
  if (is_for_writing && (is_in_view || writable_ == nullptr)) {
    fuse_reply_err(request, EROFS);
    return;
  }
  if (refuses_opening_) {
    fuse_reply_err(request, ENODEV);
    return;
  }
  file.keep_cache = image_may_change_ ? 0 : 1;
  file.noflush = is_for_writing ? 0 : 1;
  if (is_in_view) {
    file.fh = reinterpret_cast<uint64_t>(&view_->OpenFile(inode));
  } else {
    file.fh = is_for_writing ? kWriterHandle : kReaderHandle;
  }
  if (is_for_writing) ++writers_;
  activity_.NoteOpen();
  if (fuse_reply_open(request, &file) == 0) return;
  // If nobody is there to take the file there will be no RELEASE either.
  if (is_for_writing) --writers_;
  activity_.NoteClose();
}

void PlaintextFilesystem::Release(fuse_req_t request,
                                  const fuse_file_info& file) {
  if (file.fh == kWriterHandle) --writers_;
  activity_.NoteClose();
  fuse_reply_err(request, 0);
  // The kernel leaves out the FLUSH of a close that reports an error of its
  // own, and a mapping may have changed the file since.
  if (file.fh == kWriterHandle) keeper_->Correct();
}

BlockDevice& PlaintextFilesystem::DeviceOf(const fuse_file_info& file) {
  if (file.fh == kReaderHandle || file.fh == kWriterHandle) return device_;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel keeps a number for us
  return reinterpret_cast<const DirectoryView::File*>(file.fh)->device;
}

void PlaintextFilesystem::Read(fuse_req_t request, size_t size, uint64_t offset,
                               const fuse_file_info& file) {
  BlockDevice& device = DeviceOf(file);
  const uint64_t end = device.size();
  const size_t length =
      offset < end ? static_cast<size_t>(std::min<uint64_t>(size, end - offset))
                   : 0;
  const std::span<std::byte> buffer = ReadBufferOfThisThread(length);
  if (length > 0) device.Read(offset, buffer);
  fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), length);
}

std::optional<uint64_t> PlaintextFilesystem::FindExtent(fuse_req_t request,
                                                        BlockDevice& device,
                                                        uint64_t offset,
                                                        bool hole) {
  const uint64_t end = device.size();
  for (unsigned extents = 1; offset < end; ++extents) {
    const Extent extent =
        device.ExtentAt(offset, std::min(end - offset, kGreatestExtentStep));
    if (extent.is_hole == hole) return offset;
    offset += extent.length;
    if (abandoned_) return std::nullopt;
    if (extents % kExtentsBetweenInterruptChecks == 0 &&
        fuse_req_interrupted(request)) {
      return std::nullopt;
    }
  }
  return end;
}

void PlaintextFilesystem::Seek(fuse_req_t request, uint64_t offset, int whence,
                               const fuse_file_info& file) {
  BlockDevice& device = DeviceOf(file);
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  if (offset >= device.size()) {
    fuse_reply_err(request, ENXIO);
    return;
  }
  if (&device == &device_ && ExtentsAreUncertain()) {
    // Data that may be zeros is the answer that loses nobody anything.
    fuse_reply_lseek(
        request,
        static_cast<off_t>(whence == SEEK_HOLE ? device.size() : offset));
    return;
  }
  const std::optional<uint64_t> found =
      FindExtent(request, device, offset, whence == SEEK_HOLE);
  if (!found) {
    fuse_reply_err(request, EINTR);
  } else if (whence == SEEK_DATA && *found == device.size()) {
    fuse_reply_err(request, ENXIO);
  } else {
    // The end of the file counts as a hole.
    fuse_reply_lseek(request, static_cast<off_t>(*found));
  }
}

void PlaintextFilesystem::StatFs(fuse_req_t request) {
  struct statvfs status = {};
  status.f_bsize = kBlockSize;
  status.f_frsize = kBlockSize;
  status.f_blocks = (device_.size() + kBlockSize - 1) / kBlockSize;
  status.f_files = file_inode_;
  status.f_namemax = 255;
  if (writable_ == nullptr) status.f_flag = ST_RDONLY;
  fuse_reply_statfs(request, &status);
}

void PlaintextFilesystem::GetXattr(fuse_req_t request, fuse_ino_t inode,
                                   std::string_view name, size_t size) {
  if (inode != kRootInode || name != kServerPidAttribute) {
    fuse_reply_err(request, ENODATA);
    return;
  }
  const std::string& value = server_description_;
  if (size == 0) {
    fuse_reply_xattr(request, value.size());
  } else if (size < value.size()) {
    fuse_reply_err(request, ERANGE);
  } else {
    fuse_reply_buf(request, value.data(), value.size());
  }
}

void PlaintextFilesystem::ReplyException(fuse_req_t request, const char* name,
                                         uint64_t offset,
                                         uint64_t size) noexcept {
  int reply = EIO;
  std::string reason;
  try {
    try {
      throw;
    } catch (const IoError& error) {
      reply = ReplyErrno(error);
      reason = error.what();
    } catch (const std::bad_alloc&) {
      reply = ENOMEM;
      reason = "out of memory";
    } catch (const std::exception& error) {
      reason = error.what();
    } catch (...) {
      reason = "unexpected failure";
    }
    log_.Report(size > 0 ? fmt::format("{} of {} bytes at offset {}", name,
                                       size, offset)
                         : fmt::format("{} at offset {}", name, offset),
                reason);
  } catch (...) {
    // Too little memory left to tell; the caller still gets its answer.
  }
  fuse_reply_err(request, reply);
}

}  // namespace pellucid::fuse
