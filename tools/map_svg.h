#ifndef PELLUCID_TOOLS_MAP_SVG_H_
#define PELLUCID_TOOLS_MAP_SVG_H_

#include <cstdint>
#include <string>

#include "tools/block_map.h"
#include "tools/cell_picture.h"

namespace pellucid::cli {

// The grid of cells that FormatMapAsSvg() has room for.
inline constexpr uint64_t kSvgColumns = 128;
inline constexpr uint64_t kSvgRows = 64;

CellPicture PictureOf(const BlockMap& map);

// A picture of `map` for a browser, with a legend; SVG 1.1. Every kind that
// occurs has an element with the attributes data-kind and data-bytes. `title`
// may be any bytes.
std::string FormatMapAsSvg(const BlockMap& map, const std::string& title);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MAP_SVG_H_
