#include "fuse/read_ahead.h"

#include <fmt/core.h>

#include <exception>
#include <fstream>
#include <optional>
#include <string>

#include "fuse/mount_table.h"

namespace pellucid::fuse {
namespace {

constexpr unsigned kKernelDefaultKib = 128;

}  // namespace

void RaiseReadAhead(const std::filesystem::path& mountpoint) noexcept {
  try {
    const std::optional<MountTableEntry> entry = FindMount(mountpoint);
    if (!entry || entry->type != kFilesystemType) return;
    const std::string path =
        fmt::format("/sys/class/bdi/{}/read_ahead_kb", entry->device_number);
    unsigned kib = 0;
    if (!(std::ifstream(path) >> kib) || kib != kKernelDefaultKib) return;
    std::ofstream(path) << kReadAheadKib << '\n';
  } catch (const std::exception&) {
    // It only would have been faster.
  }
}

}  // namespace pellucid::fuse
