#ifndef PELLUCID_ENGINE_HOST_FILE_H_
#define PELLUCID_ENGINE_HOST_FILE_H_

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "engine/block_device.h"

namespace pellucid {

// What devices over a host file have in common, whether they write or not.

// Throws IoError: "FILE: cannot WHAT: REASON".
[[noreturn]] void ThrowHostError(const std::filesystem::path& file, int error,
                                 const std::string& what);

// Looks at an existing file before it is opened, by a descriptor (O_PATH) that
// cannot become another file any more; throws Error to refuse it.
using HostFileCheck = std::function<void(int path_fd, const struct stat&)>;

// Opens an existing file with `flags` and O_CLOEXEC, without O_NOATIME if only
// that is refused. What is neither a regular file nor a block device is refused
// before it is opened, since opening a device or a FIFO can have effects. A
// block device that the host uses itself is not opened for writing; nothing is
// if evidence must be kept (host_file_rules.h). Throws IoError ("cannot WHAT"),
// ImageLocked, UsageError, and what `check` throws.
int OpenHostFile(const std::filesystem::path& file, int flags,
                 const std::string& what, const HostFileCheck& check = {});

// Checks that the open `fd` is a regular file or a block device, and finds out
// about it. Throws UsageError otherwise, and IoError.
struct stat StatHostFile(int fd, const std::filesystem::path& file);

// False if reading may move the file's access time: it belongs to somebody
// else, and the file system keeps such times.
bool KeepsAccessTime(int fd);

// Where the file or the block device ends. Throws IoError.
uint64_t HostFileSize(int fd, const std::filesystem::path& file);

// Fills `out` from `offset`. Throws IoError, also if the file ends before.
void ReadFromHostFile(int fd, const std::filesystem::path& file,
                      uint64_t offset, std::span<std::byte> out);

// BlockDevice::ExtentAt() of a file of `size` bytes.
Extent HostFileExtentAt(int fd, uint64_t size, uint64_t offset,
                        uint64_t max_length);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_HOST_FILE_H_
