#include "tools/plaintext_copy.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace pellucid::cli {
namespace {

constexpr std::chrono::milliseconds kWatchInterval(100);

// Zeros that must be written or hashed come in pieces of this size, so that
// progress shows and the threads share the work.
constexpr uint64_t kMaxWrittenHole = uint64_t{16} << 20;

constexpr std::align_val_t kBufferAlignment{4096};

struct BufferDeleter {
  void operator()(std::byte* buffer) const {
    ::operator delete[](buffer, kBufferAlignment);
  }
};

using Buffer = std::unique_ptr<std::byte[], BufferDeleter>;

Buffer MakeBuffer() {
  return Buffer(static_cast<std::byte*>(
      ::operator new[](PieceSource::kMaxLength, kBufferAlignment)));
}

}  // namespace

PlaintextCopy::PlaintextCopy(BlockDevice& source, ByteRange range,
                             CopyTarget& target, uint64_t target_offset,
                             crypto::Hasher* hasher)
    : source_(source),
      range_(range),
      target_(target),
      target_offset_(target_offset),
      hasher_(hasher),
      ordered_(hasher != nullptr || target.is_stream()),
      pieces_(source, range,
              target.zeros() == ZeroHandling::kLeaveOut && hasher == nullptr
                  ? std::numeric_limits<uint64_t>::max()
                  : kMaxWrittenHole) {}

void PlaintextCopy::Run(unsigned threads,
                        const std::function<void(Progress)>& watch) {
  std::vector<std::jthread> workers;
  const auto progress = [this] {
    return Progress{.position = position_.load(), .copied = copied_.load()};
  };
  try {
    for (unsigned i = 0; i < threads; ++i) {
      {
        const std::lock_guard lock(mutex_);
        ++working_;
      }
      workers.emplace_back([this] { WorkAndReport(); });
    }
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kWatchInterval,
                              [this] { return working_ == 0; })) {
      lock.unlock();
      watch(progress());
      lock.lock();
    }
  } catch (...) {
    Stop();
    throw;  // The workers are joined on the way out.
  }
  if (error_) std::rethrow_exception(error_);
}

void PlaintextCopy::WorkAndReport() noexcept {
  std::exception_ptr error;
  try {
    Work();
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  if (error) stopped_ = true;
  if (error && !error_) error_ = error;
  --working_;
  changed_.notify_all();
}

void PlaintextCopy::Work() {
  const Buffer buffer = MakeBuffer();
  Piece piece;
  while (!stopped_ && pieces_.Next(piece)) {
    if (piece.is_hole()) {
      CopyHole(piece);
    } else {
      CopyData(piece, {buffer.get(), PieceSource::kMaxLength});
    }
    position_ += piece.range.length;
  }
}

void PlaintextCopy::CopyHole(const Piece& piece) {
  if (ordered_) {
    if (!WaitForTurn(piece.sequence)) return;
    if (hasher_ != nullptr) HashZeros(piece.range.length);
    if (target_.is_stream()) target_.WriteZeros(0, piece.range.length);
    PassTurn();
  }
  if (!target_.is_stream() && target_.zeros() != ZeroHandling::kLeaveOut) {
    target_.WriteZeros(TargetOffset(piece.range.offset), piece.range.length);
  }
}

void PlaintextCopy::CopyData(const Piece& piece, std::span<std::byte> buffer) {
  const std::span<std::byte> bytes =
      buffer.first(static_cast<size_t>(piece.range.length));
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

  if (ordered_) {
    if (!WaitForTurn(piece.sequence)) return;
    if (hasher_ != nullptr) hasher_->Update(bytes);
    if (target_.is_stream()) target_.Write(0, bytes);
    PassTurn();
  }
  if (!target_.is_stream()) WriteData(piece, bytes);
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

void PlaintextCopy::HashZeros(uint64_t length) {
  static constexpr std::array<std::byte, size_t{64} << 10> kZeros = {};
  while (length > 0) {
    const auto step =
        static_cast<size_t>(std::min<uint64_t>(length, kZeros.size()));
    hasher_->Update(std::span(kZeros).first(step));
    length -= step;
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
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

}  // namespace pellucid::cli
