#include "tools/file_descriptor.h"

#include <cerrno>

#include "engine/io_error.h"

namespace pellucid::cli {

void FileDescriptor::Close(std::string_view name) {
  // Linux closes the file even when it returns EINTR.
  if (close(std::exchange(fd_, -1)) != 0 && errno != EINTR) {
    ThrowIoError(errno, name);
  }
}

}  // namespace pellucid::cli
