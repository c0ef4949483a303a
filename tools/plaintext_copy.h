#ifndef PELLUCID_TOOLS_PLAINTEXT_COPY_H_
#define PELLUCID_TOOLS_PLAINTEXT_COPY_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <span>

#include "crypto/hash.h"
#include "engine/block_device.h"
#include "tools/copy_pieces.h"
#include "tools/copy_target.h"
#include "tools/progress_bar.h"

namespace pellucid::cli {

// Copies a range of a device to a target with several threads. Each takes the
// next piece, reads (so decrypts) it into a buffer of its own and writes (so
// encrypts) it. What needs
// the bytes in order, a hash or a stream, is done by the thread whose turn it
// is; writes to a file or a device need no turn.
class PlaintextCopy {
 public:
  // Borrows everything. The range lands at `target_offset`. `hasher` may be
  // null.
  PlaintextCopy(BlockDevice& source, ByteRange range, CopyTarget& target,
                uint64_t target_offset, crypto::Hasher* hasher);

  // Copies with `threads` threads (at least 1) and calls `watch` from the
  // calling thread about ten times a second. The first error of a thread, or
  // what `watch` throws, ends the copy and is thrown. Call once.
  void Run(unsigned threads, const std::function<void(Progress)>& watch);

 private:
  void WorkAndReport() noexcept;
  void Work();
  void CopyHole(const Piece& piece);
  void CopyData(const Piece& piece, std::span<std::byte> buffer);
  void WriteData(const Piece& piece, std::span<const std::byte> bytes);
  void HashZeros(uint64_t length);

  // False if the copy ended before the turn of `sequence` came.
  bool WaitForTurn(uint64_t sequence);
  void PassTurn();
  void Stop();

  uint64_t TargetOffset(uint64_t source_offset) const {
    return source_offset - range_.offset + target_offset_;
  }

  BlockDevice& source_;
  const ByteRange range_;
  CopyTarget& target_;
  const uint64_t target_offset_;
  crypto::Hasher* const hasher_;  // Used by the thread whose turn it is.
  const bool ordered_;
  PieceSource pieces_;

  std::atomic<bool> stopped_ = false;
  std::atomic<uint64_t> position_ = 0;
  std::atomic<uint64_t> copied_ = 0;

  std::mutex mutex_;
  // Signalled when turn_, stopped_ or working_ changes.
  std::condition_variable changed_;
  // Guarded by mutex_:
  uint64_t turn_ = 0;     // The sequence number of the piece whose turn it is.
  unsigned working_ = 0;  // Threads that have not ended.
  std::exception_ptr error_;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_PLAINTEXT_COPY_H_
