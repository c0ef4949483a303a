#include "tools/plaintext_copy.h"

#include <algorithm>

#include "tools/worker_threads.h"

namespace pellucid::cli {
namespace {

// Zeros that must be written or hashed come in pieces of this size, so that
// progress shows and the threads share the work.
constexpr uint64_t kMaxWrittenHole = uint64_t{16} << 20;

// What the hashes may have in hand while all threads read.
constexpr size_t kHashBufferBytes = size_t{8} << 20;

PieceCut CutFor(const CopyTarget& target, const CopyWitnesses& witnesses) {
  PieceCut cut;
  if (witnesses.manifest != nullptr) {
    cut.max_length = witnesses.manifest->piece_length();
    cut.whole_windows = true;
  }
  if (target.zeros() != ZeroHandling::kLeaveOut ||
      witnesses.hashes != nullptr) {
    cut.max_hole = std::max<uint64_t>(kMaxWrittenHole, cut.max_length);
  }
  return cut;
}

}  // namespace

PlaintextCopy::PlaintextCopy(BlockDevice& source, ByteRange range,
                             CopyTarget& target, uint64_t target_offset,
                             const CopyWitnesses& witnesses)
    : source_(source),
      range_(range),
      target_(target),
      target_offset_(target_offset),
      witnesses_(witnesses),
      cut_(CutFor(target, witnesses)),
      pieces_(source, range, cut_) {}

void PlaintextCopy::Run(unsigned threads,
                        const std::function<void(Progress)>& watch) {
  const size_t for_hashes =
      witnesses_.hashes == nullptr
          ? 0
          : std::max<size_t>(2, kHashBufferBytes / cut_.max_length);
  buffers_.emplace(cut_.max_length, threads + for_hashes);
  RunWorkers(
      threads, [this] { Work(); }, [this] { Stop(); },
      [&] { watch({.position = position_.load(), .copied = copied_.load()}); });
}

void PlaintextCopy::Work() {
  Piece piece;
  while (!stopped_) {
    // First the buffer: who has a piece must not wait for those behind it.
    const BufferPool::Buffer buffer = buffers_->Acquire();
    if (buffer == nullptr || !pieces_.Next(piece)) return;
    if (piece.is_hole()) {
      CopyHole(piece);
    } else {
      CopyData(piece, buffer);
    }
    position_ += piece.range.length;
  }
}

void PlaintextCopy::CopyHole(const Piece& piece) {
  const ByteRange range = piece.range;
  if (witnesses_.hashes != nullptr) {
    witnesses_.hashes->AddZeros(piece.sequence, range.length);
  }
  if (witnesses_.manifest != nullptr) {
    witnesses_.manifest->AddZeros(piece.sequence, range.offset, range.length);
  }
  if (target_.is_stream()) {
    if (!WaitForTurn(piece.sequence)) return;
    target_.WriteZeros(0, range.length);
    PassTurn();
  } else if (target_.zeros() != ZeroHandling::kLeaveOut) {
    target_.WriteZeros(TargetOffset(range.offset), range.length);
  }
}

void PlaintextCopy::CopyData(const Piece& piece,
                             const BufferPool::Buffer& buffer) {
  const std::span<std::byte> bytes(buffer.get(),
                                   static_cast<size_t>(piece.range.length));
  uint64_t filled_to = piece.range.offset;
  const auto part = [&](uint64_t begin, uint64_t end) {
    return bytes.subspan(static_cast<size_t>(begin - piece.range.offset),
                         static_cast<size_t>(end - begin));
  };
  for (const ByteRange& data : piece.data) {
    std::ranges::fill(part(filled_to, data.offset), std::byte{0});
    source_.Read(data.offset, part(data.offset, data.end()));
    copied_ += data.length;
    filled_to = data.end();
  }
  std::ranges::fill(part(filled_to, piece.range.end()), std::byte{0});

  if (witnesses_.hashes != nullptr) {
    witnesses_.hashes->Add(piece.sequence, buffer, bytes.size());
  }
  if (witnesses_.manifest != nullptr) {
    witnesses_.manifest->Add(piece.sequence, piece.range.offset, bytes);
  }
  if (target_.is_stream()) {
    if (!WaitForTurn(piece.sequence)) return;
    target_.Write(0, bytes);
    PassTurn();
  } else {
    WriteData(piece, bytes);
  }
}

void PlaintextCopy::WriteData(const Piece& piece,
                              std::span<const std::byte> bytes) {
  if (target_.zeros() != ZeroHandling::kLeaveOut) {
    // Small holes among the data are written with it.
    WriteSparsely(target_, TargetOffset(piece.range.offset), bytes);
    return;
  }
  for (const ByteRange& data : piece.data) {
    WriteSparsely(
        target_, TargetOffset(data.offset),
        bytes.subspan(static_cast<size_t>(data.offset - piece.range.offset),
                      static_cast<size_t>(data.length)));
  }
}

bool PlaintextCopy::WaitForTurn(uint64_t sequence) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || turn_ == sequence; });
  return !stopped_;
}

void PlaintextCopy::PassTurn() {
  const std::lock_guard lock(mutex_);
  ++turn_;
  changed_.notify_all();
}

void PlaintextCopy::Stop() {
  if (witnesses_.hashes != nullptr) witnesses_.hashes->Abandon();
  buffers_->Stop();
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

}  // namespace pellucid::cli
