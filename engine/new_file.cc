#include "engine/new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>

#include "engine/host_file.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

fs::path FolderOf(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : ".";
}

// Makes the names in the file's folder durable.
void FlushFolderOf(const fs::path& file) {
  const fs::path folder = FolderOf(file);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    // Whoever may write to a folder but not read it has no way to do this.
    if (errno == EACCES) return;
    ThrowHostError(folder, errno, "open it");
  }
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  // Not every file system has something to flush there.
  if (error != 0 && error != EINVAL) ThrowHostError(folder, error, "flush it");
}

// Whoever could not read the old file cannot read the new one, even if its
// owner cannot be kept.
void TakeOverOwner(int fd, const struct stat& old) {
  if (fchown(fd, old.st_uid, old.st_gid) == 0) fchmod(fd, old.st_mode & 07777);
}

}  // namespace

NewFile::NewFile(const fs::path& file, bool overwrite) : file_(file) {
  std::error_code ignored;
  if (!overwrite || !fs::exists(file, ignored)) {
    device_ = WritableFileDevice::Create(file);
    made_ = file;
    return;
  }
  old_ = WritableFileDevice::Open(file);
  if (S_ISREG(old_->host_stat().st_mode)) {
    BeginBeside();
  } else {
    device_ = std::move(old_);
  }
}

void NewFile::BeginBeside() {
  const fs::path shown = file_;
  file_ = fs::canonical(file_);
  std::string name = FolderOf(file_) / ".pellucid-XXXXXX";
  const int fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) ThrowHostError(shown, errno, "make a new file beside it");
  made_ = name;
  TakeOverOwner(fd, old_->host_stat());
  try {
    device_ = WritableFileDevice::Adopt(fd, shown);
  } catch (...) {
    unlink(made_.c_str());
    throw;
  }
}

NewFile::~NewFile() {
  if (!made_.empty()) unlink(made_.c_str());
}

void NewFile::Keep() {
  device_->Flush();
  if (made_.empty()) return;
  if (old_) {
    if (rename(made_.c_str(), file_.c_str()) != 0) {
      ThrowHostError(device_->file(), errno, "put the new file in its place");
    }
    made_.clear();
  }
  FlushFolderOf(file_);
  made_.clear();
}

}  // namespace pellucid
