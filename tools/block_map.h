#ifndef PELLUCID_TOOLS_BLOCK_MAP_H_
#define PELLUCID_TOOLS_BLOCK_MAP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/image_map.h"

namespace pellucid::cli {

// What a picture of an image tells apart.
enum class BlockKind {
  kUnallocated,
  kZero,
  kData,
  kShared,  // Data, compressed or not, that another state of the image has too.
  kCompressed,
  kBacking,        // Data of the backing file,
  kSecondBacking,  // of the backing file's own,
  kDeeperBacking,  // or of one further down.
};
inline constexpr size_t kBlockKinds = 8;

BlockKind BlockKindOf(const MapExtent& extent);

// How a kind looks and what it is called in a legend.
struct BlockLook {
  std::string_view name;
  char glyph;
  int terminal_colour;  // 0 to 7 as in SGR 30 to 37; negative without one.
  std::string_view web_colour;
};
const BlockLook& LookOf(BlockKind kind);

// How many bytes there are of each kind.
using BlockTotals = std::array<uint64_t, kBlockKinds>;

// An image as a grid of cells for a picture. Not synchronised.
class BlockMap {
 public:
  // The cells have a power of 2 of bytes, 512 at least, so that there are
  // `columns` (> 0) times `max_rows` (> 0) at most.
  BlockMap(uint64_t size, uint64_t columns, uint64_t max_rows);

  void Add(const MapExtent& extent);

  uint64_t size() const { return size_; }
  uint64_t columns() const { return columns_; }
  uint64_t rows() const { return (cells_.size() + columns_ - 1) / columns_; }
  uint64_t cell_bytes() const { return cell_bytes_; }
  size_t cells() const { return cells_.size(); }
  const BlockTotals& totals() const { return totals_; }

  // What a cell shows: what most of its stored bytes are, or else zeros if it
  // has any. `share` is the part of the cell that is of this kind, up to 1.
  struct Cell {
    BlockKind kind = BlockKind::kUnallocated;
    double share = 1;
  };
  Cell cell(size_t index) const;

 private:
  const uint64_t size_;
  const uint64_t columns_;
  const uint64_t cell_bytes_;
  std::vector<BlockTotals> cells_;
  BlockTotals totals_{};
};

// The map for a terminal of that many columns: rows of characters, each with
// the offset of its first byte, and a legend with the totals. With `colour`,
// cells that are full for half at least have a coloured ground, others coloured
// characters (SGR sequences of ISO 6429).
std::string FormatBlockMap(const BlockMap& map, bool colour);

// The columns of cells that fit into a terminal: a power of 2, so that rows
// begin at round offsets.
uint64_t BlockColumns(unsigned terminal_columns);

// A part of the whole: "12.5 %".
std::string FormatShare(uint64_t part, uint64_t whole);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_BLOCK_MAP_H_
