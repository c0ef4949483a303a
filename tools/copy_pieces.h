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

// Cuts a range of an image into pieces: at most kMaxLength bytes with data in
// them, or a hole of any length. Safe to call from many threads.
class PieceSource {
 public:
  static constexpr size_t kMaxLength = size_t{1} << 20;

  // `image` is borrowed. No hole comes longer than `max_hole`.
  PieceSource(BlockDevice& image, ByteRange range, uint64_t max_hole);

  // Sets `piece` to the next one; false if there is none left. Throws as
  // BlockDevice::ExtentAt() does.
  bool Next(Piece& piece);

 private:
  // Makes extent_ the one at next_.
  void LookUpExtent();
  void CutPiece(Piece& piece);

  BlockDevice& image_;
  const uint64_t end_;
  const uint64_t max_hole_;

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
