#ifndef PELLUCID_ENGINE_SECTOR_PIECES_H_
#define PELLUCID_ENGINE_SECTOR_PIECES_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace pellucid {

// Serves a read of any alignment from something that reads whole sectors.
// Calls read_sectors(offset, span) with offset and span.size() multiples of
// `sector_size` (a power of two up to 4096): at most once with the middle of
// `out` itself, and for a cut sector at either end with a buffer of this
// thread's stack.
template <typename ReadSectors>
void ReadInSectors(uint64_t offset, std::span<std::byte> out,
                   size_t sector_size, ReadSectors read_sectors) {
  const auto read_cut_sector = [&] {
    std::array<std::byte, 4096> buffer;
    const std::span sector = std::span(buffer).first(sector_size);
    const size_t skip = offset % sector_size;
    const size_t length = std::min(out.size(), sector_size - skip);
    read_sectors(offset - skip, sector);
    std::memcpy(out.data(), sector.data() + skip, length);
    offset += length;
    out = out.subspan(length);
  };
  if (offset % sector_size != 0) read_cut_sector();
  const size_t whole = out.size() - out.size() % sector_size;
  if (whole != 0) {
    read_sectors(offset, out.first(whole));
    offset += whole;
    out = out.subspan(whole);
  }
  if (!out.empty()) read_cut_sector();
}

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_SECTOR_PIECES_H_
