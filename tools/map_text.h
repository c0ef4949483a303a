#ifndef PELLUCID_TOOLS_MAP_TEXT_H_
#define PELLUCID_TOOLS_MAP_TEXT_H_

#include <filesystem>
#include <string>

#include "engine/image_map.h"

namespace pellucid::cli {

// The table of extents for people: its head, and a line for each.
std::string FormatMapHead();
std::string FormatMapLine(const MapExtent& extent,
                          const std::filesystem::path& file);

// One extent as a JSON object, as `qemu-img map` has it and a little more
// (docs/map-json.md).
std::string FormatMapObject(const MapExtent& extent,
                            const std::filesystem::path& file);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MAP_TEXT_H_
