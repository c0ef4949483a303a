#include "engine/flush_group.h"

#include <utility>

namespace pellucid {

std::optional<KeptError> FlushGroup::Await(std::unique_lock<std::mutex>& lock,
                                           bool keep_error) {
  // A flush that runs already may have passed over what the caller wrote.
  const uint64_t wanted = begun_ + 1;
  while (ended_ < wanted) {
    if (running_) {
      done_.wait(lock);
      continue;
    }
    running_ = true;
    const uint64_t number = ++begun_;
    std::optional<KeptError> failure;
    lock.unlock();
    try {
      device_.Flush();
    } catch (...) {
      failure = KeptError::Current();
    }
    lock.lock();
    running_ = false;
    ended_ = number;
    if (failure) {
      failed_ = number;
      failure_ = failure;
      if (keep_error) {
        unreported_ = std::move(failure);
        has_unreported_ = true;
      }
    }
    done_.notify_all();
  }
  return failed_ >= wanted ? failure_ : std::nullopt;
}

void FlushGroup::Flush() {
  std::unique_lock lock(mutex_);
  std::optional<KeptError> error = Await(lock, false);
  if (unreported_) error = std::exchange(unreported_, std::nullopt);
  has_unreported_ = false;
  lock.unlock();
  if (error) error->Throw();
}

void FlushGroup::ThrowKeptError() {
  if (!has_unreported_) return;
  std::unique_lock lock(mutex_);
  const std::optional<KeptError> error =
      std::exchange(unreported_, std::nullopt);
  has_unreported_ = false;
  lock.unlock();
  if (error) error->Throw();
}

bool FlushGroup::FlushAndKeepError() {
  std::unique_lock lock(mutex_);
  return !Await(lock, true).has_value();
}

}  // namespace pellucid
