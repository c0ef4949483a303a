#include "engine/write_behind.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>

namespace pellucid {

void WriteBehind::Pass(uint64_t chunk) {
  const uint64_t end = (chunk + 1) * ChunkWalk::kChunkBytes;
  // Once more the one before: a write of another thread may have come late.
  const uint64_t begin = end - (has_previous_ ? 2 : 1) * ChunkWalk::kChunkBytes;
  has_previous_ = true;
  {
    const std::lock_guard lock(mutex_);
    const bool goes_on = begin_ <= begin && begin <= end_;
    begin_ = goes_on ? begin_ : begin;
    end_ = end;
  }
  changed_.notify_all();
  if (thread_.joinable()) return;
  // Signals are for the threads that were there before.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  } catch (const std::system_error&) {
    // Without the thread the flush takes longer.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void WriteBehind::Run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return begin_ != end_; })) {
    const uint64_t offset = begin_;
    const uint64_t length = end_ - begin_;
    begin_ = end_;
    is_starting_ = true;
    ++starts_;
    lock.unlock();
    const int error = start_(offset, length);
    lock.lock();
    is_starting_ = false;
    if (errno_ == 0) errno_ = error;
    changed_.notify_all();
  }
}

int WriteBehind::Error() {
  std::unique_lock lock(mutex_);
  const uint64_t starts = starts_;
  changed_.wait(lock, [&] { return !is_starting_ || starts_ != starts; });
  return errno_;
}

}  // namespace pellucid
