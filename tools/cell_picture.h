#ifndef PELLUCID_TOOLS_CELL_PICTURE_H_
#define PELLUCID_TOOLS_CELL_PICTURE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::cli {

// A disk as a grid of cells for a browser, whatever they show.
struct CellPicture {
  struct Kind {
    std::string name;
    std::string colour;  // "#2f6fde"
    uint64_t bytes = 0;  // Of the whole disk.
  };
  struct Cell {
    size_t kind = 0;    // Index into `kinds`.
    unsigned fill = 0;  // How much of it is of this kind: FillOf().
  };

  uint64_t size = 0;  // Of the disk.
  uint64_t columns = 1;
  uint64_t cell_bytes = 1;
  std::vector<Kind> kinds;
  std::vector<Cell> cells;
};

// A part of a cell, up to 1, in thirds: 0 to 3.
unsigned FillOf(double share);

// What a page needs among its styles for the pictures in it.
inline constexpr std::string_view kCellPictureStyle =
    "text { font: 13px sans-serif; fill: #222 } .label { text-anchor: end } "
    ".title { font-size: 18px }";

// An element "svg" (SVG 1.1) with a legend, for a page with kCellPictureStyle
// or else with that as its `style`. Every kind that occurs has an element with
// the attributes data-kind and data-bytes. `title` may be any bytes.
std::string FormatCellsAsSvg(const CellPicture& picture,
                             const std::string& title,
                             std::string_view style = {});

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_CELL_PICTURE_H_
