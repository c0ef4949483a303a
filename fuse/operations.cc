// The table of functions that libfuse calls, each of which hands its request to
// the file system and lets no exception through.

#include <fuse_lowlevel.h>

#include <cstddef>
#include <cstdint>

#include "fuse/plaintext_filesystem.h"

namespace pellucid::fuse {
namespace {

PlaintextFilesystem& FilesystemOf(fuse_req_t request) {
  return *static_cast<PlaintextFilesystem*>(fuse_req_userdata(request));
}

// Calls `answer` with the file system that `request` is for. The name, offset
// and size of the request are for the log.
template <typename Answer>
void Guard(fuse_req_t request, const char* name, uint64_t offset, uint64_t size,
           const Answer& answer) noexcept {
  PlaintextFilesystem& filesystem = FilesystemOf(request);
  try {
    answer(filesystem);
  } catch (...) {
    filesystem.ReplyException(request, name, offset, size);
  }
}

void Init(void* filesystem, fuse_conn_info* connection) {
  static_cast<PlaintextFilesystem*>(filesystem)->Init(*connection);
}

void Lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Guard(request, "lookup", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.Lookup(request, parent, name);
  });
}

void GetAttr(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) {
  Guard(request, "getattr", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.GetAttr(request, inode, file);
  });
}

void SetAttr(fuse_req_t request, fuse_ino_t inode, struct stat* wanted,
             int which, fuse_file_info*) {
  Guard(request, "setattr", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.SetAttr(request, inode, *wanted, which);
  });
}

void ReadLink(fuse_req_t request, fuse_ino_t inode) {
  Guard(request, "readlink", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.ReadLink(request, inode);
  });
}

void Open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) {
  Guard(request, "open", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.Open(request, inode, *file);
  });
}

void Read(fuse_req_t request, fuse_ino_t, size_t size, off_t offset,
          fuse_file_info* file) {
  const auto start = static_cast<uint64_t>(offset);
  Guard(request, "read", start, size, [&](PlaintextFilesystem& filesystem) {
    filesystem.Read(request, size, start, *file);
  });
}

void Write(fuse_req_t request, fuse_ino_t, const char* buffer, size_t size,
           off_t offset, fuse_file_info* file) {
  const auto start = static_cast<uint64_t>(offset);
  Guard(request, "write", start, size, [&](PlaintextFilesystem& filesystem) {
    filesystem.Write(request,
                     {reinterpret_cast<const std::byte*>(buffer), size}, start,
                     *file);
  });
}

void Flush(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  Guard(request, "close", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.Flush(request, *file);
  });
}

// There is no metadata that fdatasync(2) could leave out.
void Fsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
  Guard(request, "fsync", 0, 0,
        [&](PlaintextFilesystem& filesystem) { filesystem.Fsync(request); });
}

void Release(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  Guard(request, "release", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.Release(request, *file);
  });
}

void Fallocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset,
               off_t length, fuse_file_info*) {
  const auto start = static_cast<uint64_t>(offset);
  const auto size = static_cast<uint64_t>(length);
  Guard(request, "fallocate", start, size,
        [&](PlaintextFilesystem& filesystem) {
          filesystem.Fallocate(request, mode, start, size);
        });
}

void Seek(fuse_req_t request, fuse_ino_t, off_t offset, int whence,
          fuse_file_info* file) {
  // A negative offset becomes one past every end.
  const auto start = static_cast<uint64_t>(offset);
  Guard(request, "seek", start, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.Seek(request, start, whence, *file);
  });
}

void OpenDir(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  Guard(request, "opendir", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.OpenDir(request, *file);
  });
}

void ReadDir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
             fuse_file_info*) {
  Guard(request, "readdir", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.ReadDir(request, inode, size, offset, /*with_stat=*/false);
  });
}

void ReadDirPlus(fuse_req_t request, fuse_ino_t inode, size_t size,
                 off_t offset, fuse_file_info*) {
  Guard(request, "readdir", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.ReadDir(request, inode, size, offset, /*with_stat=*/true);
  });
}

void StatFs(fuse_req_t request, fuse_ino_t) {
  Guard(request, "statfs", 0, 0,
        [&](PlaintextFilesystem& filesystem) { filesystem.StatFs(request); });
}

void GetXattr(fuse_req_t request, fuse_ino_t inode, const char* name,
              size_t size) {
  Guard(request, "getxattr", 0, 0, [&](PlaintextFilesystem& filesystem) {
    filesystem.GetXattr(request, inode, name, size);
  });
}

// The one attribute there is concerns nobody who copies files.
void ListXattr(fuse_req_t request, fuse_ino_t, size_t size) {
  if (size == 0) {
    fuse_reply_xattr(request, 0);
  } else {
    fuse_reply_buf(request, nullptr, 0);
  }
}

}  // namespace

const fuse_lowlevel_ops& PlaintextFilesystem::Operations() {
  static constexpr fuse_lowlevel_ops kOperations = [] {
    fuse_lowlevel_ops operations = {};
    operations.init = pellucid::fuse::Init;
    operations.lookup = pellucid::fuse::Lookup;
    operations.getattr = pellucid::fuse::GetAttr;
    operations.setattr = pellucid::fuse::SetAttr;
    operations.readlink = pellucid::fuse::ReadLink;
    operations.open = pellucid::fuse::Open;
    operations.read = pellucid::fuse::Read;
    operations.write = pellucid::fuse::Write;
    operations.flush = pellucid::fuse::Flush;
    operations.fsync = pellucid::fuse::Fsync;
    operations.release = pellucid::fuse::Release;
    operations.fallocate = pellucid::fuse::Fallocate;
    operations.lseek = pellucid::fuse::Seek;
    operations.opendir = pellucid::fuse::OpenDir;
    operations.readdir = pellucid::fuse::ReadDir;
    operations.readdirplus = pellucid::fuse::ReadDirPlus;
    operations.statfs = pellucid::fuse::StatFs;
    operations.getxattr = pellucid::fuse::GetXattr;
    operations.listxattr = pellucid::fuse::ListXattr;
    return operations;
  }();
  return kOperations;
}

}  // namespace pellucid::fuse
