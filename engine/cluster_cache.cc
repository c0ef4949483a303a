#include "engine/cluster_cache.h"

#include <pthread.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <csignal>
#include <utility>

namespace pellucid {
namespace {

constexpr uint64_t kPage = DirtyPages::kPageBytes;
constexpr uint64_t kBlock = DirtyPages::kBlockBytes;
// A claim is held no longer than it takes to zero this much, so that writers
// beside it, and the write-back, get on.
constexpr uint64_t kZeroesAtOnce = 256 << 20;

uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

uint32_t PagesOf(const ClusterCache::Options& options) {
  if (options.mode == ClusterCache::Mode::kWritethrough) return 1;
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(options.capacity_bytes / kPage, 1, 1U << 30));
}

}  // namespace

ClusterCache::ClusterCache(std::unique_ptr<WritableDevice> below,
                           const Options& options)
    : below_(std::move(below)),
      size_(below_->size()),
      options_(options),
      pages_(size_, PagesOf(options), options.line_bytes, claims_),
      flushes_(*below_),
      gather_buffer_(kGatherPages * kPage),
      // Half is left to the writers while a write-back runs.
      start_pages_(std::max<uint32_t>(pages_.pool().pages() / 2, 1)) {
  assert(std::has_single_bit(options.line_bytes) &&
         options.line_bytes >= kPage &&
         options.line_bytes <= kGatherPages * kPage / 2);
  to_write_.reserve(pages_.pool().pages());
  if (!options.starts_later) Start();
}

void ClusterCache::Start() {
  // Signals are for the threads that expect them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { RunInBackground(); });
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ClusterCache::~ClusterCache() {
  {
    const std::lock_guard lock(control_mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ClusterCache::Read(uint64_t offset, std::span<std::byte> out) {
  if (pages_.pool().used() == 0) return below_->Read(offset, out);
  // Each block is looked for here before it is read below: in the other order
  // it could be written back in between, and be seen as it was before.
  const uint64_t end = offset + out.size();
  uint64_t unread = offset;  // From here to `at` it is below.
  const auto read_below = [&](uint64_t until) {
    if (unread >= until) return;
    below_->Read(unread, out.subspan(unread - offset, until - unread));
  };
  for (uint64_t at = offset; at < end;) {
    const uint64_t next = std::min((at / kPage + 1) * kPage, end);
    const DirtyPages::Blocks cached =
        pages_.Read(at, out.subspan(at - offset, next - at));
    if (cached == 0) {
      at = next;
      continue;
    }
    while (at < next) {
      const uint64_t next_block = std::min((at / kBlock + 1) * kBlock, next);
      if ((cached >> (at % kPage / kBlock) & 1U) != 0) {
        read_below(at);
        unread = next_block;
      }
      at = next_block;
    }
  }
  read_below(end);
}

Extent ClusterCache::ExtentAt(uint64_t offset, uint64_t max_length) {
  const Extent below = below_->ExtentAt(offset, max_length);
  // Data below is data whatever is cached of it, and most of it is not worth
  // looking for here page by page.
  if (!below.is_hole) return below;
  // A hole counts only if the device below has it after the look at the cache,
  // as in Read().
  const DirtyPages::Range cached =
      pages_.FirstCached(offset, offset + below.length);
  if (cached.begin == offset) {
    return {.length = cached.end - offset, .is_hole = false};
  }
  return below_->ExtentAt(offset, cached.begin - offset);
}

void ClusterCache::Write(uint64_t offset, std::span<const std::byte> in) {
  if (in.empty()) return;
  if (options_.mode == Mode::kWritethrough) {
    below_->Write(offset, in);
    flushes_.Flush();
    return;
  }
  const uint64_t line = options_.line_bytes;
  while (!in.empty()) {
    size_t length = std::min(in.size(), line - offset % line);
    if (length == line) {
      length = in.size() - in.size() % line;
      WritePast(offset, length,
                [&] { below_->Write(offset, in.first(length)); });
    } else {
      WriteInLine(offset, in.first(length));
    }
    offset += length;
    in = in.subspan(length);
  }
}

void ClusterCache::WriteInLine(uint64_t offset, std::span<const std::byte> in) {
  while (!in.empty()) {
    const DirtyPages::Stored stored = pages_.Store(offset, in);
    if (stored.length != 0) NoteDirty();
    offset += stored.length;
    in = in.subspan(stored.length);
    switch (stored.obstacle) {
      case DirtyPages::Obstacle::kNone:
        break;
      case DirtyPages::Obstacle::kNoPage:
        AwaitSpace();
        break;
      case DirtyPages::Obstacle::kClaim:
        claims_.AwaitNone(offset / kPage * kPage, (offset / kPage + 1) * kPage);
        break;
      case DirtyPages::Obstacle::kCutBlock:
        ReadCutBlock(stored.cut_block, stored.version);
        break;
    }
  }
}

void ClusterCache::ReadCutBlock(uint64_t block, uint64_t version) {
  std::array<std::byte, kBlock> content;
  const std::span stored =
      std::span(content).first(std::min(kBlock, size_ - block));
  below_->Read(block, stored);
  if (pages_.FillBlock(block, stored, version) ==
      DirtyPages::Obstacle::kNoPage) {
    AwaitSpace();
  }
}

// Calls write_below(), which changes this range on the device below, in order
// with what is cached of it and with other writes. Readers are not kept out:
// what they find here until it is over is from before, and may be.
template <typename WriteBelow>
void ClusterCache::WritePast(uint64_t offset, uint64_t length,
                             WriteBelow write_below) {
  {
    const RangeClaims::Claim claim(claims_, offset / kPage * kPage,
                                   RoundUp(offset + length, kPage));
    // Older bytes must not land on top of these.
    pages_.AwaitWriteBack(offset, length);
    try {
      write_below();
    } catch (...) {
      pages_.NoteChangeBelow(offset, length);
      unflushed_ = true;
      NoteDirty();
      throw;
    }
    pages_.Supersede(offset, length);
    unflushed_ = true;
  }
  SpaceFreed();
  NoteDirty();
}

void ClusterCache::WriteZeroes(uint64_t offset, uint64_t length,
                               ZeroMode mode) {
  if (options_.mode == Mode::kWritethrough) {
    below_->WriteZeroes(offset, length, mode);
    flushes_.Flush();
    return;
  }
  while (length != 0) {
    const uint64_t piece =
        std::min(length, kZeroesAtOnce - offset % kZeroesAtOnce);
    WritePast(offset, piece, [&] { below_->WriteZeroes(offset, piece, mode); });
    offset += piece;
    length -= piece;
  }
}

void ClusterCache::Flush() {
  if (options_.mode == Mode::kWritethrough) return flushes_.Flush();
  const Clock::time_point begin = Clock::now();
  std::optional<KeptError> error;
  {
    ++flushes_waiting_;
    const std::lock_guard lock(write_back_mutex_);
    --flushes_waiting_;
    error = WriteBackAll(false);
    if (unreported_) error = std::exchange(unreported_, std::nullopt);
    has_unreported_ = false;
  }
  // Cleared first: what goes down meanwhile may not be covered. After an error
  // as well, for what did go down may be made durable.
  unflushed_ = false;
  try {
    flushes_.Flush();
  } catch (...) {
    unflushed_ = true;
    NoteDirty();
    throw;
  }
  if (error) error->Throw();
  const std::lock_guard lock(control_mutex_);
  due_ = std::max(due_, begin + options_.max_age);
}

// To be called after something was stored or went down.
void ClusterCache::NoteDirty() {
  if (!armed_) {
    {
      const std::lock_guard lock(control_mutex_);
      if (!armed_) due_ = Clock::now() + options_.max_age;
      armed_ = true;
    }
    wake_.notify_one();
  }
  if (pages_.pool().used() >= start_pages_ && !pressed_ &&
      !pressed_.exchange(true)) {
    // Not between the thread's look at `pressed_` and its sleep.
    { const std::lock_guard lock(control_mutex_); }
    wake_.notify_one();
  }
}

void ClusterCache::AwaitSpace() {
  std::unique_lock lock(control_mutex_);
  const uint64_t begun = attempts_;
  ++space_waiters_;
  wake_.notify_one();
  // Asked once for both: space can come and go at any time.
  bool is_full = true;
  space_.wait(lock, [&] {
    is_full = pages_.pool().used() >= pages_.pool().pages();
    return !is_full || futile_ > begun;
  });
  --space_waiters_;
  if (!is_full) return;
  const KeptError failure = *last_failure_;
  lock.unlock();
  failure.Throw();
}

void ClusterCache::SpaceFreed() {
  if (space_waiters_ == 0) return;
  { const std::lock_guard lock(control_mutex_); }
  space_.notify_all();
}

// Writes back what is dirty at the time of the call and returns the first
// error. Requires write_back_mutex_. With `yield` it stops early if a Flush()
// waits, which does the same.
std::optional<KeptError> ClusterCache::WriteBackAll(bool yield) {
  if (pages_.pool().used() == 0) return std::nullopt;
  to_write_.clear();
  wrote_any_ = false;
  pages_.ListDirty(to_write_);
  std::ranges::sort(to_write_);
  std::optional<KeptError> first_error;
  for (size_t next = 0; next < to_write_.size();) {
    if (yield && flushes_waiting_ != 0) {
      wrote_any_ = true;  // Nobody knows: the flush will tell.
      break;
    }
    next = Gather(next);
    std::optional<KeptError> error = WriteGathered();
    if (error && !first_error) first_error = std::move(error);
    SpaceFreed();
  }
  return first_error;
}

// Copies pages from number `first` of to_write_ on into the buffer and returns
// where to go on. Neighbours stand side by side there as they do on the device.
size_t ClusterCache::Gather(size_t first) {
  const size_t line_pages = options_.line_bytes / kPage;
  gathered_pages_ = 0;
  size_t next = first;
  while (next < to_write_.size() && gathered_pages_ < kGatherPages) {
    const uint64_t page = to_write_[next];
    // A line that begins here goes down whole, as a new cluster wants it.
    if (page % line_pages == 0 && gathered_pages_ + line_pages > kGatherPages) {
      break;
    }
    const std::optional<DirtyPages::Blocks> blocks =
        pages_.BeginWriteBack(page, gather_buffer_.bytes()
                                        .subspan(gathered_pages_ * kPage)
                                        .first<DirtyPages::kPageBytes>());
    if (!blocks) {
      // Its owner may wait for what is gathered: never wait with any of that.
      if (gathered_pages_ != 0) break;
      claims_.AwaitNone(page * kPage, (page + 1) * kPage);
      continue;
    }
    ++next;
    if (*blocks == 0) continue;  // Dropped meanwhile.
    gathered_[gathered_pages_++] = {
        .page = page, .blocks = *blocks, .failed = false};
  }
  return next;
}

// Writes each run of dirty blocks that is in the buffer.
std::optional<KeptError> ClusterCache::WriteGathered() {
  std::optional<KeptError> first_error;
  const std::span gathered = std::span(gathered_).first(gathered_pages_);
  uint64_t begin = 0;  // Of the run, on the device.
  uint64_t end = 0;
  size_t first = 0;  // The page that it begins in.
  const auto write_run = [&](size_t behind) {
    if (begin == end) return;
    const uint64_t at = first * kPage + begin % kPage;  // In the buffer.
    const uint64_t length = std::min(end, size_) - begin;
    try {
      below_->Write(begin, gather_buffer_.bytes().subspan(at, length));
      wrote_any_ = true;
    } catch (...) {
      if (!first_error) first_error = KeptError::Current();
      for (size_t i = first; i < behind; ++i) gathered[i].failed = true;
    }
  };
  for (size_t i = 0; i < gathered.size(); ++i) {
    for (uint64_t block = 0; block < DirtyPages::kBlocks; ++block) {
      if ((gathered[i].blocks >> block & 1U) == 0) continue;
      const uint64_t offset = gathered[i].page * kPage + block * kBlock;
      if (offset != end) {
        // The run may end in this page or in the one before.
        write_run(end > gathered[i].page * kPage && begin != end ? i + 1 : i);
        begin = offset;
        first = i;
      }
      end = offset + kBlock;
    }
  }
  write_run(gathered.size());
  if (!gathered.empty()) unflushed_ = true;
  for (const Gathered& page : gathered) {
    pages_.EndWriteBack(page.page, page.failed);
  }
  return first_error;
}

// Returns whether it succeeded; the error is kept for Flush() and for writers
// that wait.
bool ClusterCache::WriteBackInBackground() {
  std::optional<KeptError> error;
  bool futile = false;
  uint64_t attempt = 0;
  {
    const std::lock_guard lock(control_mutex_);
    attempt = ++attempts_;
  }
  {
    const std::lock_guard lock(write_back_mutex_);
    // A cache that is full of bad pages, not one that has a few.
    const bool was_full = pages_.pool().used() >= pages_.pool().pages();
    error = WriteBackAll(true);
    if (error) {
      unreported_ = error;
      has_unreported_ = true;
    }
    futile = was_full && !wrote_any_;
  }
  if (!error) return true;
  // Writers may wait on while others than the bad pages make space.
  if (futile) {
    const std::lock_guard lock(control_mutex_);
    futile_ = attempt;
    last_failure_ = std::move(error);
    space_.notify_all();
  }
  return false;
}

void ClusterCache::RunInBackground() {
  Clock::time_point retry_at = Clock::time_point::min();
  std::unique_lock lock(control_mutex_);
  while (!stop_) {
    const Clock::time_point now = Clock::now();
    // In this order: who fills the cache now tells the thread, or is seen here.
    pressed_ = false;
    const bool much = pages_.pool().used() >= start_pages_;
    // Who waits for space hears at once whether there can be any.
    if (space_waiters_ != 0 || (much && now >= retry_at)) {
      lock.unlock();
      const bool done = WriteBackInBackground();
      lock.lock();
      if (!done) retry_at = Clock::now() + options_.retry_after;
      continue;
    }
    if (armed_ && now >= due_) {
      lock.unlock();
      // Also flushed: before, the image below need not even refer to it.
      bool done = WriteBackInBackground();
      if (unflushed_.exchange(false) && !flushes_.FlushAndKeepError()) {
        unflushed_ = true;
        done = false;
      }
      lock.lock();
      due_ = done ? std::max(due_, now + options_.max_age)
                  : Clock::now() + options_.retry_after;
      if (!done) retry_at = due_;
      // In this order: who writes now finds it unarmed, or is found here.
      armed_ = false;
      if (pages_.pool().used() != 0 || unflushed_) armed_ = true;
      continue;
    }
    const bool retry = much;  // Later, whatever is written meanwhile.
    if (retry) pressed_ = true;
    if (armed_) {
      wake_.wait_until(lock, retry ? std::min(due_, retry_at) : due_);
    } else if (retry) {
      wake_.wait_until(lock, retry_at);
    } else {
      wake_.wait(lock);
    }
  }
}

void ClusterCache::ReportDeferredError() {
  flushes_.ThrowKeptError();
  if (!has_unreported_) return;
  std::optional<KeptError> error;
  {
    const std::lock_guard lock(write_back_mutex_);
    error = std::exchange(unreported_, std::nullopt);
    has_unreported_ = false;
  }
  if (error) error->Throw();
}

}  // namespace pellucid
