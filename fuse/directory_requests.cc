// The requests on what a directory shows: names, and the files beside `disk`.

#include <fcntl.h>
#include <fuse_lowlevel.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <vector>

#include "fuse/plaintext_filesystem.h"

namespace pellucid::fuse {
namespace {

// "." and "..", which are in front of a directory's children.
constexpr size_t kDots = 2;
// A reply has no more names than this for each byte, since FUSE's record of one
// is longer.
constexpr size_t kLeastRecordBytes = 24;

}  // namespace

fuse_entry_param PlaintextFilesystem::ViewEntry(fuse_ino_t inode) {
  fuse_entry_param entry = BlankEntry(inode);
  struct stat& attributes = entry.attr;
  if (inode != DirectoryView::kRootInode) {
    const timespec time = view_->TimeOf(inode);
    attributes.st_atim = time;
    attributes.st_mtim = time;
    attributes.st_ctim = time;
  }
  const mode_t type = DirectoryView::TypeOf(inode);
  attributes.st_nlink = type == S_IFDIR ? 2 : 1;
  if (type == S_IFDIR) {
    attributes.st_mode = type | directory_permissions_;
  } else if (type == S_IFLNK) {
    attributes.st_mode = type | 0777;
    attributes.st_size = static_cast<off_t>(view_->LinkTarget(inode).size());
  } else {
    BlockDevice& device = view_->OpenFile(inode).device;
    attributes.st_mode = type | view_permissions_;
    attributes.st_size = static_cast<off_t>(device.size());
    const AllocationCount::Figure blocks = view_blocks_.Get(inode, device);
    attributes.st_blocks = static_cast<blkcnt_t>(blocks.blocks);
    if (!blocks.is_final) {
      entry.attr_timeout =
          std::min(entry.attr_timeout, kEstimateTimeoutSeconds);
    }
  }
  return entry;
}

void PlaintextFilesystem::Lookup(fuse_req_t request, fuse_ino_t parent,
                                 std::string_view name) {
  if (IsFile(parent)) {
    fuse_reply_err(request, ENOTDIR);
    return;
  }
  fuse_entry_param entry = {};  // Inode 0: the kernel remembers "no such name".
  entry.entry_timeout = timeout_seconds();
  const std::optional<DirectoryView::Child> child = view_->Find(parent, name);
  if (child) entry = Entry(child->inode);
  fuse_reply_entry(request, &entry);
}

void PlaintextFilesystem::ReadLink(fuse_req_t request, fuse_ino_t inode) {
  fuse_reply_readlink(request, view_->LinkTarget(inode).c_str());
}

void PlaintextFilesystem::OpenDir(fuse_req_t request, fuse_file_info& file) {
  file.cache_readdir = 1;
  file.keep_cache = 1;
  fuse_reply_open(request, &file);
}

void PlaintextFilesystem::ReadDir(fuse_req_t request, fuse_ino_t inode,
                                  size_t size, off_t offset, bool with_stat) {
  const auto first = static_cast<size_t>(offset);
  std::vector<DirectoryView::Child> names;
  if (first < 1) names.push_back({".", inode, S_IFDIR});
  if (first < kDots) {
    names.push_back({"..", DirectoryView::ParentOf(inode), S_IFDIR});
  }
  for (DirectoryView::Child& child : view_->Children(
           inode, first - std::min(first, kDots), size / kLeastRecordBytes)) {
    names.push_back(std::move(child));
  }
  std::vector<char> reply(size);
  size_t used = 0;
  off_t next = offset;
  for (const DirectoryView::Child& child : names) {
    // Only of `disk` is told more than the name: to look at the others may mean
    // to read a partition table. The kernel asks by itself if it wants to know.
    fuse_entry_param entry = {};
    if (IsFile(child.inode) && with_stat) entry = Entry(child.inode);
    entry.attr.st_ino = child.inode;
    entry.attr.st_mode = child.type;
    char* const place = reply.data() + used;
    const size_t room = reply.size() - used;
    const size_t needed =
        with_stat ? fuse_add_direntry_plus(request, place, room,
                                           child.name.c_str(), &entry, ++next)
                  : fuse_add_direntry(request, place, room, child.name.c_str(),
                                      &entry.attr, ++next);
    if (needed > room) break;
    used += needed;
  }
  fuse_reply_buf(request, reply.data(), used);
}

}  // namespace pellucid::fuse
