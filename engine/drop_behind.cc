#include "engine/drop_behind.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace pellucid {
namespace {

constexpr size_t kLeastPageBytes = 4096;
// A chunk is cold if no more than one page of so many is there.
constexpr size_t kColdShare = 8;

}  // namespace

void DropBehind::Restart() {
  previous_is_ours_ = false;
  was_cold_ = 0;
}

void DropBehind::Advance(uint64_t current) {
  if (previous_is_ours_) Drop(current - 1);
  previous_is_ours_ = (was_cold_ & 1) != 0;
  was_cold_ >>= 1;
  if (IsCold(current + 1 + kLookAhead)) was_cold_ |= uint32_t{1} << kLookAhead;
}

bool DropBehind::IsCold(uint64_t chunk) const {
  // mincore(2) wants a mapping; its pages are not touched.
  void* const memory = mmap(nullptr, kChunkBytes, PROT_NONE, MAP_SHARED, fd_,
                            static_cast<off_t>(chunk * kChunkBytes));
  if (memory == MAP_FAILED) return false;
  std::array<unsigned char, kChunkBytes / kLeastPageBytes> residency;
  const bool is_known = mincore(memory, kChunkBytes, residency.data()) == 0;
  munmap(memory, kChunkBytes);
  if (!is_known) return false;
  const size_t pages = kChunkBytes / static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto resident = std::count_if(
      residency.begin(), residency.begin() + static_cast<ptrdiff_t>(pages),
      [](unsigned char page) { return (page & 1) != 0; });
  return static_cast<size_t>(resident) <= pages / kColdShare;
}

void DropBehind::Drop(uint64_t chunk) const {
  // Only a hint; what is dirty stays.
  posix_fadvise(fd_, static_cast<off_t>(chunk * kChunkBytes),
                static_cast<off_t>(kChunkBytes), POSIX_FADV_DONTNEED);
}

}  // namespace pellucid
