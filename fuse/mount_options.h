#ifndef PELLUCID_FUSE_MOUNT_OPTIONS_H_
#define PELLUCID_FUSE_MOUNT_OPTIONS_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fuse/sandbox.h"

namespace pellucid::fuse {

// A direct read of 1 MiB is split by the kernel into requests of this size,
// which several threads then decrypt at the same time.
inline constexpr uint32_t kDefaultMaxRead = 256 * 1024;
inline constexpr uint32_t kLeastMaxRead = 4 * 1024;
// libfuse 3.14 exchanges at most 256 pages with the kernel at a time.
inline constexpr uint32_t kGreatestMaxRead = 1024 * 1024;
// A direct write is split likewise, to be encrypted by several threads.
inline constexpr uint32_t kDefaultMaxWrite = 256 * 1024;

// What `-o` says about writing.
enum class MountAccess {
  kAsDevice,   // Nothing: what the device allows.
  kReadOnly,   // ro
  kReadWrite,  // rw
};

// What `-o` and the command line can say about a mount.
struct MountOptions {
  MountAccess access = MountAccess::kAsDevice;
  bool allow_other = false;   // Users other than the owner may look inside.
  bool allow_root = false;    // root may.
  bool auto_unmount = false;  // fusermount3 unmounts when the process dies.
  std::optional<uid_t> uid;   // Owner of the files; the mounting user without.
  std::optional<gid_t> gid;   // Likewise.
  std::optional<mode_t> umask;  // Permission bits that the files do not have.
  std::string fsname;           // Source in /proc/mounts; empty for "pellucid".
  uint32_t max_read = kDefaultMaxRead;    // Bytes in one read request.
  uint32_t max_write = kDefaultMaxWrite;  // Bytes in one write request.
  // dev, nodev, noexec and the like, for mount(2).
  std::vector<std::string> kernel_flags;
  // Another program may write to the image: the kernel must ask again. Not of
  // `-o`.
  bool image_may_change = false;
  // Of a mount that can be written: the kernel gathers small writes in its page
  // cache, and sends them later or with the next fsync or close. Not of `-o`.
  bool kernel_writeback = true;
  // Unmount when nobody has used the mount for that long. Not of `-o`.
  std::optional<std::chrono::milliseconds> idle_timeout;
  // The serving process gives up its rights but for these; none if empty. Not of
  // `-o`.
  std::optional<SandboxLeaves> sandbox = SandboxLeaves::kServing;
};

// Parses the values of every -o, each a list separated by commas; a backslash
// before a comma or a backslash makes it part of a value. The last one wins.
// Throws UsageError that names the option.
MountOptions ParseMountOptions(const std::vector<std::string>& values);

// Whether a device can be written through a mount with these options. Throws
// Unsupported if they ask for what the device does not allow.
bool IsWritableMount(const MountOptions& options, bool device_is_writable);

// The arguments that fuse_session_new() takes for `options`, without the
// program's name.
std::vector<std::string> LibfuseArguments(const MountOptions& options,
                                          bool is_writable);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_MOUNT_OPTIONS_H_
