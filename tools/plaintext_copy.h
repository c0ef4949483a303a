#ifndef PELLUCID_TOOLS_PLAINTEXT_COPY_H_
#define PELLUCID_TOOLS_PLAINTEXT_COPY_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>

#include "engine/block_device.h"
#include "tools/buffer_pool.h"
#include "tools/copy_pieces.h"
#include "tools/copy_target.h"
#include "tools/manifest_writer.h"
#include "tools/ordered_hashes.h"
#include "tools/progress_bar.h"

namespace pellucid::cli {

// Who else looks at the bytes of a copy; all are borrowed, null is nobody.
struct CopyWitnesses {
  OrderedHashes* hashes = nullptr;
  ManifestWriter* manifest = nullptr;
};

// Copies a range of a device to a target with several threads. Each takes the
// next piece, reads (so decrypts) it into a buffer, hashes its chunks for the
// manifest and writes (so encrypts) it. A stream needs the bytes in order: that
// is done by the thread whose turn it is. Writes to a file or a device need no
// turn. Whole hashes have threads of their own, which get the buffers.
class PlaintextCopy {
 public:
  // Borrows everything. The range lands at `target_offset`.
  PlaintextCopy(BlockDevice& source, ByteRange range, CopyTarget& target,
                uint64_t target_offset, const CopyWitnesses& witnesses = {});

  // Copies with `threads` threads (at least 1) and calls `watch` from the
  // calling thread about ten times a second. The first error of a thread, or
  // what `watch` throws, ends the copy and is thrown; the hashes are abandoned
  // then. Call once.
  void Run(unsigned threads, const std::function<void(Progress)>& watch);

 private:
  void Work();
  void CopyHole(const Piece& piece);
  void CopyData(const Piece& piece, const BufferPool::Buffer& buffer);
  void WriteData(const Piece& piece, std::span<const std::byte> bytes);

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
  const CopyWitnesses witnesses_;
  const PieceCut cut_;
  PieceSource pieces_;
  std::optional<BufferPool> buffers_;  // Made by Run().

  std::atomic<bool> stopped_ = false;
  std::atomic<uint64_t> position_ = 0;
  std::atomic<uint64_t> copied_ = 0;

  std::mutex mutex_;
  // Signalled when turn_ or stopped_ changes.
  std::condition_variable changed_;
  // The sequence number of the piece whose turn it is; guarded by mutex_.
  uint64_t turn_ = 0;
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_PLAINTEXT_COPY_H_
