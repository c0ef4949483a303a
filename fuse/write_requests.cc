// The requests that change the file, or make changes durable.

#include <fcntl.h>
#include <fuse_lowlevel.h>

#include <algorithm>
#include <cerrno>
#include <exception>

#include "fuse/plaintext_filesystem.h"

namespace pellucid::fuse {
namespace {

// What SETATTR changes about who may do what.
constexpr int kOwnerOrMode =
    FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;

// The errno for a new size that a file of `size` cannot have, or 0. A file that
// is a disk cannot be cut, but programs that replace a file's content say that
// it be empty first; they find what they need: its bytes are theirs to change.
int RefusalOfSize(uint64_t size, uint64_t wanted) {
  if (wanted > size) return EFBIG;
  return wanted == size || wanted == 0 ? 0 : EPERM;
}

}  // namespace

void PlaintextFilesystem::NoteChange() {
  times_.Touch();
  blocks_.NoteChange();
  keeper_->NoteChange();
}

void PlaintextFilesystem::SetAttr(fuse_req_t request, fuse_ino_t inode,
                                  const struct stat& wanted, int which) {
  if (writable_ == nullptr) {
    fuse_reply_err(request, EROFS);
    return;
  }
  fuse_entry_param entry = Entry(inode);
  const bool changes_owner_or_mode =
      ((which & FUSE_SET_ATTR_MODE) != 0 &&
       (wanted.st_mode & 07777) != (entry.attr.st_mode & 07777)) ||
      ((which & FUSE_SET_ATTR_UID) != 0 &&
       wanted.st_uid != entry.attr.st_uid) ||
      ((which & FUSE_SET_ATTR_GID) != 0 && wanted.st_gid != entry.attr.st_gid);
  if (changes_owner_or_mode ||
      (!IsFile(inode) && (which & ~kOwnerOrMode) != 0)) {
    fuse_reply_err(request, EPERM);
    return;
  }
  if ((which & FUSE_SET_ATTR_SIZE) != 0) {
    const int refusal =
        RefusalOfSize(device_.size(), static_cast<uint64_t>(wanted.st_size));
    if (refusal != 0) {
      fuse_reply_err(request, refusal);
      return;
    }
    // The kernel takes its size from the answer.
    keeper_->NoteTrueSize();
  }
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  if ((which & FUSE_SET_ATTR_ATIME) != 0) {
    times_.set_accessed(
        (which & FUSE_SET_ATTR_ATIME_NOW) != 0 ? now : wanted.st_atim);
  }
  if ((which & FUSE_SET_ATTR_MTIME) != 0) {
    times_.set_modified(
        (which & FUSE_SET_ATTR_MTIME_NOW) != 0 ? now : wanted.st_mtim);
  }
  if ((which & FUSE_SET_ATTR_CTIME) != 0) times_.set_changed(wanted.st_ctim);
  entry = Entry(inode);
  fuse_reply_attr(request, &entry.attr, entry.attr_timeout);
}

void PlaintextFilesystem::Write(fuse_req_t request,
                                std::span<const std::byte> in, uint64_t offset,
                                const fuse_file_info& file) {
  if (writable_ == nullptr) {
    fuse_reply_err(request, EROFS);
    return;
  }
  const uint64_t end = device_.size();
  const auto length = static_cast<size_t>(
      std::min<uint64_t>(in.size(), offset < end ? end - offset : 0));
  if (length > 0) WriteToDevice(offset, in.first(length), file);
  if (length < in.size() && file.writepage != 0) {
    // The kernel takes no notice of a short write here, but hands an error on
    // to the next fsync or close. It has made the file longer already; now its
    // next write to the cache will ask, and be refused.
    keeper_->NoteGrowth();
    fuse_lowlevel_notify_inval_inode(session_, file_inode_, -1, 0);
    fuse_reply_err(request, ENOSPC);
  } else if (length == in.size() ||
             (length > 0 && (file.flags & O_DIRECT) == 0)) {
    fuse_reply_write(request, length);
  } else {
    // As at the end of a block device. A short direct write would do as well,
    // but the kernel makes an EIO of it.
    fuse_reply_err(request, ENOSPC);
  }
}

void PlaintextFilesystem::WriteToDevice(uint64_t offset,
                                        std::span<const std::byte> in,
                                        const fuse_file_info& file) {
  NoteChange();
  try {
    writable_->Write(offset, in);
  } catch (const std::exception& error) {
    if (file.writepage != 0) lost_pages_errno_ = ReplyErrno(error);
    throw;
  }
}

void PlaintextFilesystem::Flush(fuse_req_t request,
                                const fuse_file_info& file) {
  if (writable_ == nullptr) {
    fuse_reply_err(request, ENOSYS);  // The kernel need not ask again.
    return;
  }
  if (file.fh == kWriterHandle) {
    keeper_->Correct();
    if (report_deferred_error_) report_deferred_error_();
  }
  fuse_reply_err(request, 0);
}

void PlaintextFilesystem::Fsync(fuse_req_t request) {
  if (writable_ == nullptr) {
    fuse_reply_err(request, ENOSYS);  // The kernel need not ask again.
    return;
  }
  // The kernel asks only after it has told of the pages that it has lost.
  lost_pages_errno_ = 0;
  writable_->Flush();
  fuse_reply_err(request, 0);
}

void PlaintextFilesystem::Fallocate(fuse_req_t request, int mode,
                                    uint64_t offset, uint64_t length) {
  if (writable_ == nullptr) {
    fuse_reply_err(request, EROFS);
    return;
  }
  const bool is_punch = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  const bool is_zero = (mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE;
  if (!is_punch && !is_zero) {
    // Mode 0 too: space cannot be promised without writing, which is what
    // posix_fallocate(3) does when it is told so.
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  const uint64_t end = device_.size();
  const uint64_t room = offset < end ? end - offset : 0;
  if (is_zero && length > room) {
    fuse_reply_err(request, ENOSPC);
    return;
  }
  // A hole behind the end is there already, as in every file.
  const uint64_t within = std::min(length, room);
  if (within > 0) {
    NoteChange();
    writable_->WriteZeroes(
        offset, within, is_punch ? ZeroMode::kFreeSpace : ZeroMode::kKeepSpace);
  }
  fuse_reply_err(request, 0);
}

bool PlaintextFilesystem::ExtentsAreUncertain() {
  // Only an open file can have pages that wait; the kernel does not send them
  // before it asks, and holds the inode's lock meanwhile.
  return kernel_writeback_ && writers_ > 0 && !keeper_->WriteBackPages();
}

void PlaintextFilesystem::RefuseWriting() {
  refuses_writing_ = true;
  // Of the attributes only: the kernel asks for them before the next write.
  fuse_lowlevel_notify_inval_inode(session_, file_inode_, -1, 0);
}

void PlaintextFilesystem::DropKernelPages() {
  fuse_lowlevel_notify_inval_inode(session_, file_inode_, 0, 0);
}

}  // namespace pellucid::fuse
