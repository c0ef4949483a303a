#ifndef PELLUCID_ENGINE_DROP_BEHIND_H_
#define PELLUCID_ENGINE_DROP_BEHIND_H_

#include <cstdint>

#include "engine/chunk_walk.h"

namespace pellucid {

// Takes a host file out of the host's page cache behind somebody who reads it
// in order: above a mount the kernel keeps the plaintext, and would keep
// everything twice. Only what the reading itself has brought there goes; what
// was there before belongs to somebody who may want it again, and a file that
// is read here and there stays, too. (docs/architecture.md, "The page cache")
//
// Safe to call from many threads. Never waits for another one.
class DropBehind {
 public:
  // Of what is looked at and dropped; two of them are left behind the reader.
  static constexpr uint64_t kChunkBytes = ChunkWalk::kChunkBytes;
  // So many chunks before the reader comes to one it is looked at. The host's
  // own read-ahead must not have been there: that of a disk may be 16 MiB.
  static constexpr unsigned kLookAhead = 4;

  // `fd` is borrowed.
  explicit DropBehind(int fd) : fd_(fd) {}

  // To be called after each read.
  void NoteRead(uint64_t offset, uint64_t length) {
    walk_.Note(
        offset, length, [this](uint64_t chunk) { Advance(chunk); },
        [this] { Restart(); });
  }

 private:
  // The reader has gone through chunk `current`.
  void Advance(uint64_t current);
  void Restart();
  // Whether next to nothing of a chunk is in the page cache, as far as the host
  // tells: to somebody who may not write the file it says that all is.
  bool IsCold(uint64_t chunk) const;
  void Drop(uint64_t chunk) const;

  const int fd_;
  ChunkWalk walk_;

  // In the walk's callbacks only:
  // The chunk before was cold until it was read through.
  bool previous_is_ours_ = false;
  // Bit n: so was the reader's chunk + n when it was looked at.
  uint32_t was_cold_ = 0;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_DROP_BEHIND_H_
