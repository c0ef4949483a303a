#ifndef PELLUCID_FUSE_KERNEL_LIMITS_H_
#define PELLUCID_FUSE_KERNEL_LIMITS_H_

#include <cstdint>

#include "fuse/mountpoint.h"

namespace pellucid::fuse {

// How far the kernel reads ahead of somebody who reads in order. Its own
// 128 KiB are a single small request at a time; with this, several cores
// decrypt while the reader copies.
inline constexpr uint32_t kReadAheadBytes = 512 << 10;

// How much of what the kernel allows to be dirty at all may be ours, in
// percent. Its own 1, meant for servers that it does not trust, makes a writer
// of a large file sleep again and again while the server has nothing to do.
inline constexpr uint32_t kDirtyPercent = 4;

// Sets both for what was just mounted, where the kernel lets us: that is up to
// root, and /sys must be writable; elsewhere the mount is only slower. Asks no
// file system. To be called before the answer to INIT, which must name
// kReadAheadBytes, since the kernel takes the lower one.
void RaiseKernelLimits(const Mountpoint& mountpoint);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_KERNEL_LIMITS_H_
