#include "tools/map_svg.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "tools/byte_size.h"
#include "tools/command_line.h"

namespace pellucid::cli {
namespace {

// In pixels.
constexpr uint64_t kMargin = 24;
constexpr uint64_t kLabels = 84;
constexpr uint64_t kCell = 7;
constexpr uint64_t kGridTop = 76;
constexpr uint64_t kLegendLine = 22;
constexpr uint64_t kWidth = 2 * kMargin + kLabels + kSvgColumns * kCell;

// Any bytes as text of XML: UTF-8 without control characters, and without
// U+FFFE and U+FFFF, which are none.
std::string XmlText(const std::string& text) {
  using Json = nlohmann::json;
  const std::string utf8 =
      Json::parse(
          Json(text).dump(-1, ' ', false, Json::error_handler_t::replace))
          .get<std::string>();
  std::string xml;
  const std::string printable = Printable(utf8);
  for (size_t i = 0; i < printable.size(); ++i) {
    const char c = printable[i];
    const std::string_view next = std::string_view(printable).substr(i, 3);
    if (next == "\xef\xbf\xbe" || next == "\xef\xbf\xbf") {
      xml += '?';
      i += 2;
      continue;
    }
    switch (c) {
      case '&':
        xml += "&amp;";
        break;
      case '<':
        xml += "&lt;";
        break;
      case '>':
        xml += "&gt;";
        break;
      case '"':
        xml += "&quot;";
        break;
      default:
        xml += c;
    }
  }
  return xml;
}

// Cells with little of what they show are paler.
int Opacity(double share) {
  return 40 + 20 * static_cast<int>(std::lround(std::min(share, 1.0) * 3));
}

std::string Row(const BlockMap& map, uint64_t row) {
  const uint64_t first = row * map.columns();
  const uint64_t end = std::min<uint64_t>(first + map.columns(), map.cells());
  const uint64_t y = kGridTop + row * kCell;
  std::string svg;
  if (row % 4 == 0) {
    svg += fmt::format("<text x=\"{}\" y=\"{}\" class=\"label\">{}</text>\n",
                       kMargin + kLabels - 8, y + kCell,
                       FormatByteSize(first * map.cell_bytes()));
  }
  for (uint64_t i = first; i < end;) {
    const BlockMap::Cell cell = map.cell(i);
    const int opacity = Opacity(cell.share);
    uint64_t alike = 1;
    for (; i + alike < end; ++alike) {
      const BlockMap::Cell next = map.cell(i + alike);
      if (next.kind != cell.kind || Opacity(next.share) != opacity) break;
    }
    svg += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" "
        "fill-opacity=\"{}%\"><title>{} from byte {}</title></rect>\n",
        kMargin + kLabels + (i - first) * kCell, y, alike * kCell, kCell - 1,
        LookOf(cell.kind).web_colour, opacity, LookOf(cell.kind).name,
        i * map.cell_bytes());
    i += alike;
  }
  return svg;
}

std::string Legend(const BlockMap& map, uint64_t y) {
  std::string svg;
  for (size_t kind = 0; kind < kBlockKinds; ++kind) {
    const uint64_t bytes = map.totals()[kind];
    if (bytes == 0) continue;
    const BlockLook& look = LookOf(static_cast<BlockKind>(kind));
    svg += fmt::format(
        "<g data-kind=\"{0}\" data-bytes=\"{1}\">"
        "<rect x=\"{2}\" y=\"{3}\" width=\"14\" height=\"14\" fill=\"{4}\"/>"
        "<text x=\"{5}\" y=\"{6}\">{0}</text>"
        "<text x=\"{7}\" y=\"{6}\" class=\"label\">{8}</text>"
        "<text x=\"{9}\" y=\"{6}\" class=\"label\">{10}</text></g>\n",
        look.name, bytes, kMargin + kLabels, y, look.web_colour,
        kMargin + kLabels + 22, y + 12, kMargin + kLabels + 330,
        FormatByteSize(bytes), kMargin + kLabels + 410,
        FormatShare(bytes, map.size()));
    y += kLegendLine;
  }
  return svg;
}

}  // namespace

std::string FormatMapAsSvg(const BlockMap& map, const std::string& title) {
  const uint64_t legend_top = kGridTop + map.rows() * kCell + kMargin;
  const auto kinds = static_cast<uint64_t>(std::ranges::count_if(
      map.totals(), [](uint64_t bytes) { return bytes != 0; }));
  const uint64_t height = legend_top + kinds * kLegendLine + kMargin;
  std::string svg = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
      "viewBox=\"0 0 {0} {1}\" data-bytes=\"{2}\">\n"
      "<style>text {{ font: 13px sans-serif; fill: #222 }} "
      ".label {{ text-anchor: end }} .title {{ font-size: 18px }}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
      "<text x=\"{3}\" y=\"36\" class=\"title\">{4}</text>\n"
      "<text x=\"{3}\" y=\"58\">{5}, {6} for each cell</text>\n",
      kWidth, height, map.size(), kMargin, XmlText(title),
      FormatExactByteSize(map.size()), FormatByteSize(map.cell_bytes()));
  for (uint64_t row = 0; row < map.rows(); ++row) svg += Row(map, row);
  svg += Legend(map, legend_top);
  svg += "</svg>\n";
  return svg;
}

}  // namespace pellucid::cli
