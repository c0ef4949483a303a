#ifndef PELLUCID_TOOLS_MAP_TEXT_H_
#define PELLUCID_TOOLS_MAP_TEXT_H_

#include <cstdint>
#include <filesystem>
#include <string>

#include "engine/image_map.h"

namespace pellucid::cli {

// The table of extents for people: its head, and a line for each, with columns
// for offsets in a disk of `size` bytes. Fits 80 columns, but for long names,
// up to 1 TiB.
std::string FormatMapHead(uint64_t size);
std::string FormatMapLine(const MapExtent& extent,
                          const std::filesystem::path& file, uint64_t size);

// One extent as a JSON object, as `qemu-img map` has it and a little more
// (docs/map-json.md).
std::string FormatMapObject(const MapExtent& extent,
                            const std::filesystem::path& file);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MAP_TEXT_H_
