#ifndef PELLUCID_FUSE_OWN_MOUNT_H_
#define PELLUCID_FUSE_OWN_MOUNT_H_

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <optional>

#include "fuse/mountpoint.h"

namespace pellucid::fuse {

// The mount as the process that serves it reaches it, by its path, for system
// calls that end in requests to itself: they must be made while other threads
// answer, never by the last one that could. What cannot be reached any more,
// because it was detached or something was mounted over it, is left alone.
// Safe to call from many threads after Identify().
class OwnMount {
 public:
  explicit OwnMount(Mountpoint mountpoint);

  // What is mounted at the path is ours: remembers it. To be called once, first
  // of all. Throws IoError.
  void Identify();

  // Make the kernel set its inode's size or times, by way of SETATTR. False if
  // that fails; errno tells why.
  bool SetSize(uint64_t size);
  bool SetTimes(timespec accessed, timespec modified);

  // Sends what the kernel's page cache holds of the file in WRITE requests, and
  // waits for them. Does not wait for the inode's lock, so that a request may
  // ask for it that the kernel holds the lock for. False if that fails.
  bool WriteBackPages();

  // False if it was detached, or something is mounted over it.
  bool IsReachable() const;

  // fsync(2). False if that fails; errno tells why.
  bool Sync();

  enum class UnmountResult { kDone, kBusy, kUnreachable };
  // Unmounts if nothing is in use. Throws IoError and Error.
  UnmountResult UnmountIfIdle();

 private:
  // A descriptor for the file with the `flags` of open(2), -1 if it cannot be
  // had.
  int OpenFile(int flags) const;

  const Mountpoint mountpoint_;
  const std::filesystem::path file_;
  std::optional<dev_t> device_;  // Empty before Identify().
};

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_OWN_MOUNT_H_
