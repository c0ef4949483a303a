#include "engine/host_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "engine/errors.h"
#include "engine/host_file_rules.h"

namespace pellucid {

void ThrowHostError(const std::filesystem::path& file, int error,
                    const std::string& what) {
  throw IoError(error, fmt::format("{}: cannot {}: {}", file.native(), what,
                                   std::generic_category().message(error)));
}

int OpenHostFile(const std::filesystem::path& file, int flags,
                 const std::string& what, const HostFileCheck& check) {
  if (MustKeepEvidence() && (flags & O_ACCMODE) != O_RDONLY) {
    throw UsageError(
        fmt::format("{}: cannot {}: --forensic opens files for reading only",
                    file.native(), what));
  }
  const int path_fd = open(file.c_str(), O_PATH | O_CLOEXEC);
  if (path_fd < 0) ThrowHostError(file, errno, what);
  try {
    const struct stat status = StatHostFile(path_fd, file);
    if (check) check(path_fd, status);
    const mode_t mode = status.st_mode;
    // The host refuses a block device that it has mounted or mapped itself.
    if (S_ISBLK(mode) && (flags & O_ACCMODE) != O_RDONLY) flags |= O_EXCL;
  } catch (...) {
    close(path_fd);
    throw;
  }
  const std::string same_file = fmt::format("/proc/self/fd/{}", path_fd);
  const auto try_open = [&](int with) {
    const int fd = open(same_file.c_str(), with | O_CLOEXEC | O_NOCTTY);
    // Without /proc the name has to do.
    return fd < 0 && errno == ENOENT
               ? open(file.c_str(), with | O_CLOEXEC | O_NOCTTY)
               : fd;
  };
  int fd = try_open(flags);
  if (fd < 0 && errno == EPERM) fd = try_open(flags & ~O_NOATIME);
  const int error = errno;
  close(path_fd);
  if (fd < 0 && error == EBUSY && (flags & O_EXCL) != 0) {
    throw ImageLocked(
        fmt::format("{}: the host uses this block device itself (a mount, a "
                    "mapping, swap); "
                    "end that first, or use --read-only",
                    file.native()));
  }
  if (fd < 0) ThrowHostError(file, error, what);
  return fd;
}

struct stat StatHostFile(int fd, const std::filesystem::path& file) {
  struct stat stat = {};
  if (fstat(fd, &stat) != 0) ThrowHostError(file, errno, "stat it");
  const mode_t mode = stat.st_mode;
  if (!S_ISREG(mode) && !S_ISBLK(mode)) {
    throw UsageError(fmt::format(
        "{}: is a {}; name a regular file or a block device", file.native(),
        S_ISDIR(mode)    ? "directory"
        : S_ISFIFO(mode) ? "FIFO"
        : S_ISCHR(mode)  ? "character device"
                         : "special file"));
  }
  return stat;
}

bool KeepsAccessTime(int fd) {
  if ((fcntl(fd, F_GETFL) & O_NOATIME) != 0) return true;
  struct statvfs host;
  return fstatvfs(fd, &host) == 0 &&
         (host.f_flag & (ST_NOATIME | ST_RDONLY)) != 0;
}

uint64_t HostFileSize(int fd, const std::filesystem::path& file) {
  const off_t end = lseek(fd, 0, SEEK_END);
  if (end < 0) ThrowHostError(file, errno, "find its size");
  return static_cast<uint64_t>(end);
}

void ReadFromHostFile(int fd, const std::filesystem::path& file,
                      uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n =
        pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      // Without the length, so that a place has one message.
      ThrowHostError(file, errno, fmt::format("read at offset {}", offset));
    }
    if (n == 0) {
      throw IoError(EIO, fmt::format("{}: ends at offset {}; it was longer "
                                     "when it was opened",
                                     file.native(), offset));
    }
    offset += static_cast<uint64_t>(n);
    out = out.subspan(static_cast<size_t>(n));
  }
}

Extent HostFileExtentAt(int fd, uint64_t size, uint64_t offset,
                        uint64_t max_length) {
  const uint64_t length = std::min(max_length, size - offset);
  const auto at = static_cast<off_t>(offset);
  const off_t data = lseek(fd, at, SEEK_DATA);
  if (data < 0) {
    // ENXIO: a hole up to the end. Anything else: the host cannot tell.
    return {.length = length, .is_hole = errno == ENXIO};
  }
  if (data > at) {
    return {.length = std::min(length, static_cast<uint64_t>(data - at)),
            .is_hole = true};
  }
  const off_t hole = lseek(fd, at, SEEK_HOLE);
  if (hole <= at) return {.length = length, .is_hole = false};
  return {.length = std::min(length, static_cast<uint64_t>(hole - at)),
          .is_hole = false};
}

}  // namespace pellucid
