#include "tools/block_map.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "tools/byte_size.h"

namespace pellucid::cli {
namespace {

constexpr uint64_t kMinCellBytes = 512;
constexpr size_t kLabelColumns = 10;  // "1023.9 GiB"

constexpr std::array<BlockLook, kBlockKinds> kLooks = {{
    {"unallocated", '.', -1, "#e9ecf0"},
    {"zero", '0', 7, "#b3bac4"},
    {"data", '#', 4, "#2f6fde"},
    {"data shared with a snapshot", 's', 5, "#9b4fd6"},
    {"compressed", 'c', 3, "#e58a1f"},
    {"in the backing file", '1', 2, "#2e9e5b"},
    {"in the second backing file", '2', 6, "#25a5a8"},
    {"in a deeper backing file", '3', 1, "#8a6d3b"},
}};

uint64_t CellBytes(uint64_t size, uint64_t max_cells) {
  const uint64_t least = size / max_cells + (size % max_cells != 0);
  return std::bit_ceil(std::max(least, kMinCellBytes));
}

std::string Coloured(const BlockMap::Cell& cell, size_t count, bool colour) {
  const BlockLook& look = LookOf(cell.kind);
  std::string glyphs(count, look.glyph);
  if (!colour || look.terminal_colour < 0) return glyphs;
  return cell.share >= 0.5
             ? fmt::format("\x1b[30;4{}m{}\x1b[0m", look.terminal_colour,
                           glyphs)
             : fmt::format("\x1b[3{}m{}\x1b[0m", look.terminal_colour, glyphs);
}

std::string FormatRow(const BlockMap& map, size_t first, bool colour) {
  const size_t end = std::min<size_t>(first + map.columns(), map.cells());
  std::string row = fmt::format(
      "{:>{}}  ", FormatByteSize(first * map.cell_bytes()), kLabelColumns);
  for (size_t i = first; i < end;) {
    const BlockMap::Cell cell = map.cell(i);
    size_t alike = 1;
    for (; i + alike < end; ++alike) {
      const BlockMap::Cell next = map.cell(i + alike);
      if (next.kind != cell.kind || (next.share < 0.5) != (cell.share < 0.5)) {
        break;
      }
    }
    row += Coloured(cell, alike, colour);
    i += alike;
  }
  return row + '\n';
}

}  // namespace

BlockKind BlockKindOf(const MapExtent& extent) {
  if (extent.kind == MapKind::kUnallocated) return BlockKind::kUnallocated;
  if (extent.kind == MapKind::kZero) return BlockKind::kZero;
  switch (extent.depth) {
    case 0:
      return extent.shared                         ? BlockKind::kShared
             : extent.kind == MapKind::kCompressed ? BlockKind::kCompressed
                                                   : BlockKind::kData;
    case 1:
      return BlockKind::kBacking;
    case 2:
      return BlockKind::kSecondBacking;
    default:
      return BlockKind::kDeeperBacking;
  }
}

const BlockLook& LookOf(BlockKind kind) {
  return kLooks.at(static_cast<size_t>(kind));
}

BlockMap::BlockMap(uint64_t size, uint64_t columns, uint64_t max_rows)
    : size_(size),
      columns_(columns),
      cell_bytes_(CellBytes(size, columns * max_rows)),
      cells_(size / cell_bytes_ + (size % cell_bytes_ != 0)) {}

void BlockMap::Add(const MapExtent& extent) {
  const auto kind = static_cast<size_t>(BlockKindOf(extent));
  totals_[kind] += extent.length;
  for (uint64_t done = 0; done < extent.length;) {
    const uint64_t at = extent.start + done;
    const uint64_t piece =
        std::min(extent.length - done, cell_bytes_ - at % cell_bytes_);
    cells_.at(at / cell_bytes_)[kind] += piece;
    done += piece;
  }
}

BlockMap::Cell BlockMap::cell(size_t index) const {
  const BlockTotals& bytes = cells_.at(index);
  constexpr auto kFirstStored = static_cast<size_t>(BlockKind::kData);
  size_t kind = static_cast<size_t>(
      std::max_element(bytes.begin() + kFirstStored, bytes.end()) -
      bytes.begin());
  if (bytes[kind] == 0) kind = static_cast<size_t>(BlockKind::kZero);
  if (bytes[kind] == 0) return {};
  const uint64_t length = std::min(cell_bytes_, size_ - index * cell_bytes_);
  return {
      .kind = static_cast<BlockKind>(kind),
      .share = static_cast<double>(bytes[kind]) / static_cast<double>(length)};
}

std::string FormatBlockMap(const BlockMap& map, bool colour) {
  std::string text;
  for (size_t first = 0; first < map.cells(); first += map.columns()) {
    text += FormatRow(map, first, colour);
  }
  text += fmt::format("\n{:>{}}  {} for each character\n", "", kLabelColumns,
                      FormatByteSize(map.cell_bytes()));
  for (size_t kind = 0; kind < kBlockKinds; ++kind) {
    const uint64_t bytes = map.totals()[kind];
    if (bytes == 0) continue;
    const auto block = static_cast<BlockKind>(kind);
    text += fmt::format("{:>{}}  {} {:<27} {:>11} {:>8}\n", "", kLabelColumns,
                        Coloured({.kind = block, .share = 1}, 1, colour),
                        LookOf(block).name, FormatByteSize(bytes),
                        FormatShare(bytes, map.size()));
  }
  return text;
}

uint64_t BlockColumns(unsigned terminal_columns) {
  // The last column stays free: some terminals wrap when it is written.
  constexpr unsigned kUsed = kLabelColumns + 2 + 1;
  return std::bit_floor(terminal_columns > kUsed ? terminal_columns - kUsed
                                                 : 1U);
}

std::string FormatShare(uint64_t part, uint64_t whole) {
  const double percent =
      whole == 0 ? 0
                 : 100 * static_cast<double>(part) / static_cast<double>(whole);
  // Something is not nothing.
  if (part != 0 && percent < 0.05) return "<0.1 %";
  return fmt::format("{:.1f} %", percent);
}

}  // namespace pellucid::cli
