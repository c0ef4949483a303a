#ifndef PELLUCID_TESTS_ENGINE_PAGE_CACHE_WATCH_H_
#define PELLUCID_TESTS_ENGINE_PAGE_CACHE_WATCH_H_

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <vector>

namespace pellucid {

inline bool IsOfType(const std::filesystem::path& path, long type) {
  struct statfs status;
  return statfs(path.c_str(), &status) == 0 &&
         static_cast<long>(status.f_type) == type;
}

// What is in a tmpfs is nowhere else, so that nothing there is ever dropped or
// on its way to a disk: no place for tests of that.
inline bool IsInTmpfs(const std::filesystem::path& path) {
  return IsOfType(path, 0x01021994);
}

// Of an overlayfs, as containers have it, neither sync_file_range(2) nor
// cachestat(2) reaches the pages.
inline bool IsInOverlayfs(const std::filesystem::path& path) {
  return IsOfType(path, 0x794c7630);
}

// How much of the first `size` bytes of a file is in the host's page cache.
inline uint64_t CachedBytes(int fd, uint64_t size) {
  void* const memory = mmap(nullptr, size, PROT_NONE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("mmap");
  std::vector<unsigned char> pages((size + 4095) / 4096);
  const bool is_known = mincore(memory, size, pages.data()) == 0;
  munmap(memory, size);
  if (!is_known) throw std::runtime_error("mincore");
  return 4096 * static_cast<uint64_t>(std::ranges::count_if(
                    pages, [](unsigned char p) { return (p & 1) != 0; }));
}

// How much of the first `size` bytes of a file the host has not begun to store.
// None if it cannot tell (before Linux 6.5, in an overlayfs).
inline std::optional<uint64_t> DirtyBytes(int fd, uint64_t size) {
  constexpr long kCachestat = 451;  // The same for all machines.
  const std::array<uint64_t, 2> range = {0, size};
  std::array<uint64_t, 5> counts = {};  // Of pages: cached, dirty, ...
  if (syscall(kCachestat, fd, range.data(), counts.data(), 0) != 0 ||
      counts[0] == 0) {
    return std::nullopt;
  }
  return counts[1] * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// The same for a file all of which is in the page cache. Older hosts begin with
// it here, so that the second answer is 0.
inline uint64_t UnstoredBytes(int fd, uint64_t size) {
  if (const auto dirty = DirtyBytes(fd, size)) return *dirty;
  // What is on its way is awaited, and can be dropped then.
  const auto length = static_cast<off64_t>(size);
  if (sync_file_range(fd, 0, length, SYNC_FILE_RANGE_WAIT_BEFORE) != 0 ||
      posix_fadvise(fd, 0, length, POSIX_FADV_DONTNEED) != 0) {
    throw std::runtime_error("sync_file_range, posix_fadvise");
  }
  return CachedBytes(fd, size);
}

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_PAGE_CACHE_WATCH_H_
