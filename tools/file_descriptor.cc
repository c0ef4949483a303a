#include "tools/file_descriptor.h"

#include <fmt/core.h>

#include <cerrno>
#include <system_error>

#include "engine/errors.h"

namespace pellucid::cli {

void ThrowIoError(int host_errno, std::string_view name) {
  throw IoError(
      host_errno,
      fmt::format("{}: {}", name, std::generic_category().message(host_errno)));
}

void FileDescriptor::Close(std::string_view name) {
  // Linux closes the file even when it returns EINTR.
  if (close(std::exchange(fd_, -1)) != 0 && errno != EINTR) {
    ThrowIoError(errno, name);
  }
}

}  // namespace pellucid::cli
