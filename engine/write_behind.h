#ifndef PELLUCID_ENGINE_WRITE_BEHIND_H_
#define PELLUCID_ENGINE_WRITE_BEHIND_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "engine/chunk_walk.h"

namespace pellucid {

// Has the host begin to store what somebody writes in order, while he writes:
// left alone it keeps gigabytes in its page cache, and the flush at the end
// waits for the disk from the first byte on.
// (docs/architecture.md, "The page cache")
//
// Safe to call from many threads. While one of them waits for a slow disk to
// take a request, the others go on without.
class WriteBehind {
 public:
  // `start(offset, length)` begins to store bytes of the file that have been
  // written, in one thread at a time.
  explicit WriteBehind(std::function<void(uint64_t, uint64_t)> start)
      : start_(std::move(start)) {}

  // To be called after each write.
  void NoteWrite(uint64_t offset, uint64_t length) {
    walk_.Note(
        offset, length, [this](uint64_t chunk) { Start(chunk); },
        [this] { has_previous_ = false; });
  }

 private:
  void Start(uint64_t chunk) {
    // Once more the one before: a write of another thread may have come late.
    const uint64_t first = has_previous_ ? chunk - 1 : chunk;
    has_previous_ = true;
    start_(first * ChunkWalk::kChunkBytes,
           (chunk + 1 - first) * ChunkWalk::kChunkBytes);
  }

  const std::function<void(uint64_t, uint64_t)> start_;
  ChunkWalk walk_;
  bool has_previous_ = false;  // In the walk's callbacks only.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_WRITE_BEHIND_H_
