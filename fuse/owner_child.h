#ifndef PELLUCID_FUSE_OWNER_CHILD_H_
#define PELLUCID_FUSE_OWNER_CHILD_H_

#include <chrono>
#include <string>

#include "fuse/mount_table.h"

namespace pellucid::fuse {

// False if there is nothing to read from `fd` after `patience`. Throws IoError.
bool WaitUntilReadable(int fd, std::chrono::milliseconds patience);

// Lets a child process ask something of a mount: a server that is stuck would
// keep whoever asks waiting, and FUSE lets only the owner of a mount look at
// it, not even root. `ask` runs in the child, with the owner's rights if they
// can be had, and writes its answer, at most 32 bytes at once, to `fd`. Gives
// the answer; "" if there is none within `patience`. A child that is given up
// may stay, and keeps the mount in use, until its request is answered. Not for
// a process with other threads. Throws IoError.
std::string AskAsOwner(const MountTableEntry& mount,
                       std::chrono::milliseconds patience,
                       void (*ask)(const char* mountpoint, int fd));

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_OWNER_CHILD_H_
