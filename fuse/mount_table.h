#ifndef PELLUCID_FUSE_MOUNT_TABLE_H_
#define PELLUCID_FUSE_MOUNT_TABLE_H_

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::fuse {

inline constexpr std::string_view kFilesystemType = "fuse.pellucid";
// An extended attribute of the root whose value is the server's process id in
// decimal and, if it can be written, a blank and the name of its EndReport.
inline constexpr char kServerPidAttribute[] = "user.pellucid.pid";

// A line of /proc/self/mountinfo, as far as FUSE is concerned.
struct MountTableEntry {
  std::string device;  // MAJOR:MINOR, as st_dev of its files.
  std::filesystem::path mountpoint;
  std::string type;  // "fuse.pellucid"
  std::string source;
  std::optional<uid_t> owner;  // Who mounted it; only FUSE says so.
  std::optional<gid_t> owner_group;
};

// Parses the text of a mountinfo file (proc(5)); lines that make no sense are
// left out.
std::vector<MountTableEntry> ParseMountTable(std::string_view text);

// The mount that lies on top at `mountpoint`, an absolute path without links,
// or nothing. Asks no mounted file system, so it cannot hang. Throws IoError.
std::optional<MountTableEntry> FindMount(
    const std::filesystem::path& mountpoint);

// `path` as the mount table would spell it: absolute, links in its folders
// resolved. The last component is not looked at if it is a mountpoint, for its
// file system may no longer answer. Throws std::filesystem::filesystem_error.
std::filesystem::path ResolveMountpoint(const std::filesystem::path& path);

}  // namespace pellucid::fuse

#endif  // PELLUCID_FUSE_MOUNT_TABLE_H_
