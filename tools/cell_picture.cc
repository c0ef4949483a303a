#include "tools/cell_picture.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "tools/block_map.h"
#include "tools/byte_size.h"
#include "tools/xml_text.h"

namespace pellucid::cli {
namespace {

// In pixels.
constexpr uint64_t kMargin = 24;
constexpr uint64_t kLabels = 84;
constexpr uint64_t kCell = 7;
constexpr uint64_t kGridTop = 76;
constexpr uint64_t kLegendLine = 22;

std::string Row(const CellPicture& picture, uint64_t first) {
  const uint64_t end =
      std::min<uint64_t>(first + picture.columns, picture.cells.size());
  const uint64_t row = first / picture.columns;
  const uint64_t y = kGridTop + row * kCell;
  std::string svg;
  if (row % 4 == 0) {
    svg += fmt::format("<text x=\"{}\" y=\"{}\" class=\"label\">{}</text>\n",
                       kMargin + kLabels - 8, y + kCell,
                       FormatByteSize(first * picture.cell_bytes));
  }
  for (uint64_t i = first; i < end;) {
    const CellPicture::Cell cell = picture.cells[i];
    uint64_t alike = 1;
    for (; i + alike < end; ++alike) {
      const CellPicture::Cell next = picture.cells[i + alike];
      if (next.kind != cell.kind || next.fill != cell.fill) break;
    }
    const CellPicture::Kind& kind = picture.kinds.at(cell.kind);
    // Cells with little of what they show are paler.
    svg += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" "
        "fill-opacity=\"{}%\"><title>{} from byte {}</title></rect>\n",
        kMargin + kLabels + (i - first) * kCell, y, alike * kCell, kCell - 1,
        XmlText(kind.colour), 40 + 20 * cell.fill, XmlText(kind.name),
        i * picture.cell_bytes);
    i += alike;
  }
  return svg;
}

std::string Legend(const CellPicture& picture, uint64_t y) {
  std::string svg;
  for (const CellPicture::Kind& kind : picture.kinds) {
    if (kind.bytes == 0) continue;
    svg += fmt::format(
        "<g data-kind=\"{0}\" data-bytes=\"{1}\">"
        "<rect x=\"{2}\" y=\"{3}\" width=\"14\" height=\"14\" fill=\"{4}\"/>"
        "<text x=\"{5}\" y=\"{6}\">{0}</text>"
        "<text x=\"{7}\" y=\"{6}\" class=\"label\">{8}</text>"
        "<text x=\"{9}\" y=\"{6}\" class=\"label\">{10}</text></g>\n",
        XmlText(kind.name), kind.bytes, kMargin + kLabels, y,
        XmlText(kind.colour), kMargin + kLabels + 22, y + 12,
        kMargin + kLabels + 330, FormatByteSize(kind.bytes),
        kMargin + kLabels + 410, FormatShare(kind.bytes, picture.size));
    y += kLegendLine;
  }
  return svg;
}

}  // namespace

unsigned FillOf(double share) {
  return static_cast<unsigned>(std::lround(std::min(share, 1.0) * 3));
}

std::string FormatCellsAsSvg(const CellPicture& picture,
                             const std::string& title, std::string_view style) {
  const uint64_t rows =
      (picture.cells.size() + picture.columns - 1) / picture.columns;
  const uint64_t legend_top = kGridTop + rows * kCell + kMargin;
  const auto kinds = static_cast<uint64_t>(std::ranges::count_if(
      picture.kinds,
      [](const CellPicture::Kind& kind) { return kind.bytes != 0; }));
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
      "viewBox=\"0 0 {0} {1}\" data-bytes=\"{2}\">\n"
      "{7}"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
      "<text x=\"{3}\" y=\"36\" class=\"title\">{4}</text>\n"
      "<text x=\"{3}\" y=\"58\">{5}, {6} for each cell</text>\n",
      2 * kMargin + kLabels + picture.columns * kCell,
      legend_top + kinds * kLegendLine + kMargin, picture.size, kMargin,
      XmlText(title), FormatExactByteSize(picture.size),
      FormatByteSize(picture.cell_bytes),
      style.empty() ? "" : fmt::format("<style>{}</style>\n", style));
  for (uint64_t cell = 0; cell < picture.cells.size();
       cell += picture.columns) {
    svg += Row(picture, cell);
  }
  svg += Legend(picture, legend_top);
  svg += "</svg>\n";
  return svg;
}

}  // namespace pellucid::cli
