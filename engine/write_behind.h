#ifndef PELLUCID_ENGINE_WRITE_BEHIND_H_
#define PELLUCID_ENGINE_WRITE_BEHIND_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/chunk_walk.h"

namespace pellucid {

// Has the host begin to store what somebody writes in order, while he writes:
// left alone it keeps gigabytes in its page cache, and the flush at the end
// waits for the disk from the first byte on. It is asked in a thread of its
// own, which is there from the first time on: a slow disk lets it wait, and who
// writes may hold locks. (docs/architecture.md, "The page cache")
//
// Safe to call from many threads.
class WriteBehind {
 public:
  // `start(offset, length)` begins to store bytes of the file that have been
  // written, and returns 0 or an errno.
  explicit WriteBehind(std::function<int(uint64_t, uint64_t)> start)
      : start_(std::move(start)) {}
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // To be called after each write. Waits for nothing.
  void NoteWrite(uint64_t offset, uint64_t length) {
    walk_.Note(
        offset, length, [this](uint64_t chunk) { Pass(chunk); },
        [this] { has_previous_ = false; });
  }

  // The errno of the first start that failed, or 0; to be asked after a flush
  // of the file. A host may drop what it cannot begin to store and tell nobody
  // but who asked for it: the flush finds nothing to store then. Waits for a
  // start in progress, but for none that comes after it.
  int Error();

  // Starts nothing more, and waits for a start in progress; last of all calls.
  void Stop() { thread_ = {}; }

 private:
  void Pass(uint64_t chunk);
  void Run(const std::stop_token& stop);

  const std::function<int(uint64_t, uint64_t)> start_;
  ChunkWalk walk_;
  bool has_previous_ = false;  // In the walk's callbacks only.

  std::mutex mutex_;
  std::condition_variable_any changed_;
  // Guarded by mutex_:
  uint64_t begin_ = 0;  // What is to be started next; nothing if it is empty.
  uint64_t end_ = 0;
  bool is_starting_ = false;
  uint64_t starts_ = 0;
  int errno_ = 0;

  std::jthread thread_;  // Started by Pass(). Last: it uses all of the above.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_WRITE_BEHIND_H_
