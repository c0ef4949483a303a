#ifndef PELLUCID_FUSE_READ_AHEAD_H_
#define PELLUCID_FUSE_READ_AHEAD_H_

#include <cstdint>

#include "fuse/mountpoint.h"

namespace pellucid::fuse {

// How far the kernel reads ahead of somebody who reads in order. Its own
// 128 KiB are a single small request at a time; with this, several cores
// decrypt while the reader copies.
inline constexpr uint32_t kReadAheadBytes = 512 << 10;

// Makes the kernel read ahead that far in what was just mounted, where it lets
// us: that is up to root, and /sys must be writable. Asks no file system; to be
// called before the kernel is told in the answer to INIT, which only lowers it.
void WidenReadAhead(const Mountpoint& mountpoint);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_READ_AHEAD_H_
