#ifndef PELLUCID_TOOLS_FILE_DESCRIPTOR_H_
#define PELLUCID_TOOLS_FILE_DESCRIPTOR_H_

#include <unistd.h>

#include <string_view>
#include <utility>

namespace pellucid::cli {

// Owns an open file. The destructor ignores errors of close(2): call Close()
// where they matter. Not synchronised.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }

  bool is_open() const { return fd_ >= 0; }
  int get() const { return fd_; }

  // Closes the file. Throws IoError for `name` when the host reports that
  // written data got lost.
  void Close(std::string_view name);

 private:
  int fd_;  // Negative when there is none.
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_FILE_DESCRIPTOR_H_
