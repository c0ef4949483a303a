#include "fuse/inode_keeper.h"

#include <fmt/core.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "engine/errors.h"

namespace pellucid::fuse {
namespace {

// Only a server that cannot start threads, or one that is about to end, is as
// slow as this.
constexpr std::chrono::seconds kCorrectionPatience{5};
constexpr std::chrono::seconds kWriteBackPatience{60};
// Requests that may wait for the thread, whose work ends in requests: of at
// least four threads that serve, others must be free to answer those.
constexpr unsigned kMostWaiting = 2;

}  // namespace

InodeKeeper::InodeKeeper(MountAttendant& mount, MountpointKind root,
                         uint64_t size, const FileTimes& times)
    : mount_(mount),
      times_(times),
      root_is_file_(root == MountpointKind::kFile),
      size_(size) {}

void InodeKeeper::Start(std::function<void()> on_ready,
                        std::function<void(std::exception_ptr)> on_failure) {
  thread_ = std::jthread(
      [this, on_ready = std::move(on_ready),
       on_failure = std::move(on_failure)](const std::stop_token& stop) {
        Run(stop, on_ready, on_failure);
      });
}

void InodeKeeper::Stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void InodeKeeper::Run(
    const std::stop_token& stop, const std::function<void()>& on_ready,
    const std::function<void(std::exception_ptr)>& on_failure) {
  try {
    Prepare();
  } catch (...) {
    on_failure(std::current_exception());
    return;
  }
  on_ready();
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !jobs_.empty(); })) {
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
  has_ended_ = true;
  jobs_.clear();  // Tells those who wait.
}

void InodeKeeper::Prepare() {
  mount_.Identify();
  // A new size comes with new times, which SETATTR stores.
  const timespec accessed = times_.accessed();
  const timespec modified = times_.modified();
  if (root_is_file_ && kernel_writeback_ &&
      (!mount_.SetSize(size_) || !mount_.SetTimes(accessed, modified))) {
    const int error = errno;
    throw IoError(
        error,
        fmt::format("cannot set the size of what was just mounted to {} bytes: "
                    "{}; {}mount it on a directory, or with --cache none",
                    size_, std::generic_category().message(error),
                    // The kernel applies it to this file, too.
                    error == EFBIG ? "raise the limit on the size of files "
                                     "(ulimit -f), "
                                   : ""));
  }
  prepared_ = true;
}

void InodeKeeper::Correct() {
  if (!kernel_writeback_) return;
  const bool grown = size_is_wrong_;
  // Before the times are looked at: a change that comes later is noted anew.
  const bool stale = times_are_stale_.exchange(false);
  if (!grown && !stale) return;
  const bool done = Perform(
      JobKind::kCorrection,
      [this, grown, stale] {
        // Before its result is told: who waits for it may ask for a write-back
        // next.
        const CorrectionEnd end(*this);
        // SETATTR, which answers this, takes back the note.
        const bool has_size = !grown || mount_.SetSize(size_);
        const bool has_times =
            !stale || mount_.SetTimes(times_.accessed(), times_.modified());
        if (!has_times) times_are_stale_ = true;
        return has_size && has_times;
      },
      kCorrectionPatience);
  if (!done && stale) times_are_stale_ = true;
}

bool InodeKeeper::WriteBackPages() {
  return Perform(
      JobKind::kWriteBack, [this] { return mount_.WriteBackPages(); },
      kWriteBackPatience);
}

bool InodeKeeper::Perform(JobKind kind, std::function<bool()> work,
                          std::chrono::milliseconds patience) {
  Job job(std::move(work));
  std::future<bool> result = job.get_future();
  bool waits = false;
  {
    const std::scoped_lock lock(mutex_);
    if (has_ended_) return false;
    if (kind == JobKind::kCorrection) {
      ++corrections_;
    } else if (corrections_ > 0) {
      // It wants the inode's lock, which the kernel may hold for the request
      // that waits for this: it would wait for ever.
      return false;
    }
    waits = waiting_ < kMostWaiting;
    if (!waits && kind == JobKind::kWriteBack) return false;
    if (waits) ++waiting_;
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
  if (!waits) return true;  // It will be done, a little later.
  const auto status = result.wait_for(patience);
  {
    const std::scoped_lock lock(mutex_);
    --waiting_;
  }
  if (status != std::future_status::ready) return false;
  try {
    return result.get();
  } catch (const std::future_error&) {
    return false;  // The thread has ended without doing it.
  }
}

}  // namespace pellucid::fuse
