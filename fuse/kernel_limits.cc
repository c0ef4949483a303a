#include "fuse/kernel_limits.h"

#include <fmt/core.h>

#include <fstream>
#include <optional>
#include <string>

#include "engine/errors.h"
#include "fuse/mount_table.h"

namespace pellucid::fuse {

void RaiseKernelLimits(const Mountpoint& mountpoint) {
  std::optional<MountTableEntry> mount;
  try {
    mount = FindMount(mountpoint.path);
  } catch (const IoError&) {
    return;
  }
  if (!mount || mount->type != kFilesystemType) return;
  const std::string folder = fmt::format("/sys/class/bdi/{}/", mount->device);
  std::ofstream(folder + "read_ahead_kb") << kReadAheadBytes / 1024;
  std::ofstream(folder + "max_ratio") << kDirtyPercent;
}

}  // namespace pellucid::fuse
