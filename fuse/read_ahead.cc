#include "fuse/read_ahead.h"

#include <fmt/core.h>

#include <fstream>
#include <optional>

#include "engine/errors.h"
#include "fuse/mount_table.h"

namespace pellucid::fuse {

void WidenReadAhead(const Mountpoint& mountpoint) {
  std::optional<MountTableEntry> mount;
  try {
    mount = FindMount(mountpoint.path);
  } catch (const IoError&) {
    return;  // The mount works, only slower.
  }
  if (!mount || mount->type != kFilesystemType) return;
  std::ofstream(fmt::format("/sys/class/bdi/{}/read_ahead_kb", mount->device))
      << kReadAheadBytes / 1024;
}

}  // namespace pellucid::fuse
