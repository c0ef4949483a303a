#ifndef PELLUCID_TOOLS_COPY_PIECES_H_
#define PELLUCID_TOOLS_COPY_PIECES_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "engine/block_device.h"

namespace pellucid::cli {

// A run of bytes of an image.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t end() const { return offset + length; }
};

// What one thread copies at a time.
struct Piece {
  uint64_t sequence = 0;  // 0, 1, 2, ... in the order of the offsets.
  ByteRange range;
  std::vector<ByteRange> data;  // The parts to read; holes are between them.

  bool is_hole() const { return data.empty(); }
};

// How a range is cut into pieces.
struct PieceCut {
  static constexpr size_t kUsualLength = size_t{1} << 20;

  // No piece with data in it is longer, no hole longer than `max_hole`.
  size_t max_length = kUsualLength;
  uint64_t max_hole = UINT64_MAX;
  // Do all pieces but the last end at multiples of max_length from the
  // beginning of the range on? Otherwise those with data end at multiples of
  // max_length in the image or earlier, and holes anywhere.
  bool whole_windows = false;
};

// Cuts a range of an image into pieces: a bounded number of bytes with data in
// them, or a hole of any length. Safe to call from many threads.
class PieceSource {
 public:
  // `image` is borrowed.
  PieceSource(BlockDevice& image, ByteRange range, const PieceCut& cut);

  // Sets `piece` to the next one; false if there is none left. Throws as
  // BlockDevice::ExtentAt() does.
  bool Next(Piece& piece);

 private:
  // Makes extent_ the one at next_.
  void LookUpExtent();
  void CutPiece(Piece& piece);
  // Moves next_ behind the hole there, or behind as much of it as one piece
  // may have.
  void SkipHole();

  BlockDevice& image_;
  const uint64_t origin_;  // The windows of pieces are counted from here.
  const uint64_t end_;
  const PieceCut cut_;

  // Held while the image looks up an extent: the walk is sequential, and
  // far faster than the copying that it feeds.
  std::mutex mutex_;
  // Guarded by mutex_:
  uint64_t next_;            // Where the next piece begins.
  uint64_t sequence_ = 0;    // Of the next piece.
  uint64_t extent_end_ = 0;  // Of the extent that was looked up last.
  bool extent_is_hole_ = false;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_COPY_PIECES_H_
