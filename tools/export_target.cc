#include "tools/export_target.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "engine/errors.h"
#include "engine/host_file_rules.h"
#include "engine/io_error.h"

namespace pellucid::cli {
namespace {

// Only the owner may read what was encrypted before.
constexpr mode_t kNewFileMode = S_IRUSR | S_IWUSR;

// One zeroing request to a block device; short enough to notice Ctrl-C.
constexpr uint64_t kDeviceZeroStep = uint64_t{64} << 20;

alignas(4096) const std::array<std::byte, size_t{64} << 10> kZeros = {};

bool IsStandardOutput(const std::string& path) { return path == "-"; }

void RefuseSources(const struct stat& target, const std::string& name,
                   const std::vector<HostFileId>& sources) {
  if (std::ranges::find(sources, HostFileId::Of(target)) == sources.end()) {
    return;
  }
  throw UsageError(fmt::format(
      "{}: this is a part of the image itself; export to another file", name));
}

// What may not be written although it could be.
void RefuseTarget(const struct stat& target, const std::string& name,
                  const ExportTargetOptions& options) {
  if (S_ISDIR(target.st_mode)) {
    throw UsageError(
        fmt::format("{}: is a directory; name a file in it", name));
  }
  if (IsStandardOutput(options.path)) {
    if (isatty(STDOUT_FILENO) != 0 && !options.overwrite) {
      throw UsageError(
          "standard output is a terminal; name a file, or use a pipe");
    }
    return;
  }
  if (options.overwrite) return;
  if (S_ISREG(target.st_mode)) {
    throw UsageError(
        fmt::format("{}: the file exists; --force overwrites it", name));
  }
  if (S_ISBLK(target.st_mode)) {
    throw UsageError(
        fmt::format("{}: is a block device; --force overwrites it", name));
  }
}

struct stat StatOf(int fd, const std::string& name) {
  struct stat status;
  if (fstat(fd, &status) != 0) ThrowIoError(errno, name);
  return status;
}

void WriteAt(int fd, uint64_t offset, std::span<const std::byte> data,
             const std::string& name) {
  while (!data.empty()) {
    const ssize_t written =
        pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) ThrowIoError(errno, name);
    data = data.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
}

void WriteToStream(int fd, std::span<const std::byte> data,
                   const std::string& name) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written >= 0) {
      data = data.subspan(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {
      // Somebody who shares the pipe has made it non-blocking.
      pollfd event = {fd, POLLOUT, 0};
      poll(&event, 1, -1);
    } else if (errno != EINTR) {
      ThrowIoError(errno, name);
    }
  }
}

int OpenOrDuplicate(const ExportTargetOptions& options, bool& created) {
  if (IsStandardOutput(options.path)) {
    return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  }
  const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY;
  const int fd =
      open(options.path.c_str(), flags | O_CREAT | O_EXCL, kNewFileMode);
  created = fd >= 0;
  if (created || errno != EEXIST) return fd;
  // O_TRUNC must wait until we know what it is.
  return open(options.path.c_str(), flags);
}

}  // namespace

void CheckExportTarget(const ExportTargetOptions& options) {
  struct stat status;
  if (IsStandardOutput(options.path)) {
    status = StatOf(STDOUT_FILENO, "standard output");
    RefuseTarget(status, "standard output", options);
  } else if (stat(options.path.c_str(), &status) == 0) {
    RefuseTarget(status, options.path, options);
  }
}

ExportTarget::ExportTarget(const ExportTargetOptions& options, uint64_t size,
                           const std::vector<HostFileId>& sources)
    : name_(IsStandardOutput(options.path) ? "standard output" : options.path),
      file_(OpenOrDuplicate(options, created_)) {
  if (!file_.is_open()) ThrowIoError(errno, name_);
  const struct stat status = StatOf(file_.get(), name_);
  id_ = HostFileId::Of(status);
  ReportOpenedHostFile(
      {.file = name_, .fd = file_.get(), .use = HostFileUse::kOutput});
  if (!created_) {
    RefuseTarget(status, name_, options);
    RefuseSources(status, name_, sources);
  }
  if (IsStandardOutput(options.path)) {
    kind_ = Kind::kStream;
  } else if (S_ISREG(status.st_mode)) {
    kind_ = Kind::kFile;
    sparse_ = options.sparse;
  } else if (S_ISBLK(status.st_mode)) {
    kind_ = Kind::kBlockDevice;
  }
  try {
    Prepare(size, status.st_size != 0);
  } catch (...) {
    Discard();
    throw;
  }
}

void ExportTarget::Prepare(uint64_t size, bool has_content) {
  switch (kind_) {
    case Kind::kFile:
      if (size > static_cast<uint64_t>(INT64_MAX)) ThrowIoError(EFBIG, name_);
      // Old content goes first, so that what is skipped reads as zeros. Not
      // where there is none: ext4 hands all of a file that was ever cut to
      // nothing to the disk when it is closed, and close(2) waits for most of it.
      if ((has_content && ftruncate(file_.get(), 0) != 0) ||
          ftruncate(file_.get(), static_cast<off_t>(size)) != 0) {
        ThrowIoError(errno, name_);
      }
      break;
    case Kind::kBlockDevice: {
      uint64_t capacity = 0;
      if (ioctl(file_.get(), BLKGETSIZE64, &capacity) != 0) {
        ThrowIoError(errno, name_);
      }
      if (capacity < size) {
        throw UsageError(
            fmt::format("{}: the device has {} bytes, the plaintext {}", name_,
                        capacity, size));
      }
      break;
    }
    case Kind::kStream:
      // Fewer switches between writer and reader; not every pipe allows it.
      fcntl(file_.get(), F_SETPIPE_SZ, 1 << 20);
      break;
  }
}

void ExportTarget::Write(uint64_t offset, std::span<const std::byte> data) {
  if (is_stream()) {
    WriteToStream(file_.get(), data, name_);
  } else {
    WriteAt(file_.get(), offset, data, name_);
  }
}

bool ExportTarget::ZeroOnBlockDevice(uint64_t offset, uint64_t length) {
  std::array<uint64_t, 2> range = {offset, length};
  return ioctl(file_.get(), BLKZEROOUT, range.data()) == 0;
}

void ExportTarget::WriteZeros(uint64_t offset, uint64_t length) {
  while (length > 0) {
    uint64_t step = std::min(length, kDeviceZeroStep);
    if (kind_ != Kind::kBlockDevice || !ZeroOnBlockDevice(offset, step)) {
      step = std::min<uint64_t>(length, kZeros.size());
      Write(offset, std::span(kZeros).first(static_cast<size_t>(step)));
    }
    offset += step;
    length -= step;
  }
}

void ExportTarget::Finish() {
  // close(2) does not wait for a device, nor tell how it went.
  if (kind_ == Kind::kBlockDevice && fsync(file_.get()) != 0) {
    ThrowIoError(errno, name_);
  }
  file_.Close(name_);
}

void ExportTarget::Discard() noexcept {
  if (created_) unlink(name_.c_str());
  created_ = false;
}

}  // namespace pellucid::cli
