#include "tools/copy_pieces.h"

#include <algorithm>

namespace pellucid::cli {
namespace {

// Host file systems allocate no less: reading across a smaller hole costs less
// than a write of its own.
constexpr uint64_t kSmallestHole = 4096;

void AddData(Piece& piece, ByteRange data) {
  if (!piece.data.empty() &&
      data.offset - piece.data.back().end() < kSmallestHole) {
    piece.data.back().length = data.end() - piece.data.back().offset;
  } else {
    piece.data.push_back(data);
  }
}

}  // namespace

PieceSource::PieceSource(BlockDevice& image, ByteRange range,
                         const PieceCut& cut)
    : image_(image),
      origin_(cut.whole_windows ? range.offset : 0),
      end_(range.end()),
      cut_(cut),
      next_(range.offset) {}

bool PieceSource::Next(Piece& piece) {
  const std::lock_guard lock(mutex_);
  if (next_ == end_) return false;
  CutPiece(piece);
  piece.sequence = sequence_++;
  return true;
}

void PieceSource::LookUpExtent() {
  if (next_ < extent_end_) return;
  const Extent extent = image_.ExtentAt(next_, end_ - next_);
  extent_end_ = next_ + extent.length;
  extent_is_hole_ = extent.is_hole;
}

void PieceSource::CutPiece(Piece& piece) {
  const uint64_t begin = next_;
  // Pieces end at multiples of their size, so that the reads are aligned.
  const uint64_t window_end =
      begin +
      std::min<uint64_t>(end_ - begin,
                         cut_.max_length - (begin - origin_) % cut_.max_length);
  piece.data.clear();
  while (next_ < window_end) {
    LookUpExtent();
    if (!extent_is_hole_) {
      const uint64_t data_end = std::min(extent_end_, window_end);
      AddData(piece, {.offset = next_, .length = data_end - next_});
      next_ = data_end;
    } else if (extent_end_ < window_end) {
      next_ = extent_end_;
    } else if (next_ == begin) {
      // A hole that leaves the window is a piece of its own.
      SkipHole();
      break;
    } else if (cut_.whole_windows) {
      next_ = window_end;
    } else {
      break;
    }
  }
  piece.range = {.offset = begin, .length = next_ - begin};
}

void PieceSource::SkipHole() {
  uint64_t length = std::min(extent_end_ - next_, cut_.max_hole);
  if (cut_.whole_windows && next_ + length != end_) {
    length -= length % cut_.max_length;
  }
  next_ += length;
}

}  // namespace pellucid::cli
