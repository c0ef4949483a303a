#include "tools/map_svg.h"

namespace pellucid::cli {

CellPicture PictureOf(const BlockMap& map) {
  CellPicture picture;
  picture.size = map.size();
  picture.columns = map.columns();
  picture.cell_bytes = map.cell_bytes();
  for (size_t kind = 0; kind < kBlockKinds; ++kind) {
    const BlockLook& look = LookOf(static_cast<BlockKind>(kind));
    picture.kinds.push_back({.name = std::string(look.name),
                             .colour = std::string(look.web_colour),
                             .bytes = map.totals()[kind]});
  }
  for (size_t i = 0; i < map.cells(); ++i) {
    const BlockMap::Cell cell = map.cell(i);
    picture.cells.push_back(
        {.kind = static_cast<size_t>(cell.kind), .fill = FillOf(cell.share)});
  }
  return picture;
}

std::string FormatMapAsSvg(const BlockMap& map, const std::string& title) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" +
         FormatCellsAsSvg(PictureOf(map), title, kCellPictureStyle);
}

}  // namespace pellucid::cli
