#include "tools/byte_kind_map.h"

#include <algorithm>
#include <bit>

#include "tools/map_svg.h"

namespace pellucid::cli {
namespace {

uint64_t CellBytes(uint64_t size) {
  constexpr uint64_t kMaxCells = kSvgColumns * kSvgRows;
  const uint64_t least = size / kMaxCells + (size % kMaxCells != 0 ? 1 : 0);
  return std::bit_ceil(std::max<uint64_t>(least, kByteKindBlock));
}

}  // namespace

ByteKindMap::ByteKindMap(uint64_t size)
    : size_(size),
      cell_bytes_(CellBytes(size)),
      cells_(static_cast<size_t>(size / cell_bytes_ +
                                 (size % cell_bytes_ != 0 ? 1 : 0))) {}

void ByteKindMap::Write(uint64_t offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    const std::span block = data.first(static_cast<size_t>(std::min<uint64_t>(
        kByteKindBlock - offset % kByteKindBlock, data.size())));
    const ByteKind kind = ByteKindOf(block);
    if (kind != ByteKind::kZeros) {
      cells_.at(offset / cell_bytes_)[static_cast<size_t>(kind)] +=
          block.size();
    }
    offset += block.size();
    data = data.subspan(block.size());
  }
}

CellPicture ByteKindMap::Picture() const {
  CellPicture picture;
  picture.size = size_;
  picture.columns = kSvgColumns;
  picture.cell_bytes = cell_bytes_;
  picture.kinds = {{.name = "zeros", .colour = "#e9ecf0"},
                   {.name = "text-like", .colour = "#2e9e5b"},
                   {.name = "mixed", .colour = "#2f6fde"},
                   {.name = "random", .colour = "#d64545"}};
  picture.kinds[0].bytes = size_;
  for (size_t i = 0; i < cells_.size(); ++i) {
    const uint64_t length =
        std::min(cell_bytes_, size_ - uint64_t{i} * cell_bytes_);
    size_t greatest = 0;
    uint64_t greatest_bytes = 0;
    for (size_t kind = 1; kind < kByteKinds; ++kind) {
      const uint64_t bytes = cells_[i][kind];
      picture.kinds[kind].bytes += bytes;
      picture.kinds[0].bytes -= bytes;
      if (bytes > greatest_bytes) {
        greatest = kind;
        greatest_bytes = bytes;
      }
    }
    const double share = greatest == 0 ? 1
                                       : static_cast<double>(greatest_bytes) /
                                             static_cast<double>(length);
    picture.cells.push_back({.kind = greatest, .fill = FillOf(share)});
  }
  return picture;
}

}  // namespace pellucid::cli
