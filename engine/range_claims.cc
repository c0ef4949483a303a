#include "engine/range_claims.h"

namespace pellucid {

RangeClaims::Claim::Claim(RangeClaims& claims, uint64_t begin, uint64_t end)
    : claims_(claims), begin_(begin), end_(end) {
  std::unique_lock lock(claims_.mutex_);
  claims_.released_.wait(lock,
                         [&] { return !claims_.OverlapLocked(begin, end); });
  next_ = claims_.first_;
  if (next_ != nullptr) next_->previous_ = this;
  claims_.first_ = this;
  ++claims_.count_;
}

RangeClaims::Claim::~Claim() {
  const std::lock_guard lock(claims_.mutex_);
  (previous_ != nullptr ? previous_->next_ : claims_.first_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  --claims_.count_;
  claims_.released_.notify_all();
}

bool RangeClaims::Overlap(uint64_t begin, uint64_t end) const {
  if (count_ == 0) return false;
  const std::lock_guard lock(mutex_);
  return OverlapLocked(begin, end);
}

void RangeClaims::AwaitNone(uint64_t begin, uint64_t end) const {
  std::unique_lock lock(mutex_);
  released_.wait(lock, [&] { return !OverlapLocked(begin, end); });
}

bool RangeClaims::OverlapLocked(uint64_t begin, uint64_t end) const {
  for (const Claim* claim = first_; claim != nullptr; claim = claim->next_) {
    if (claim->begin_ < end && begin < claim->end_) return true;
  }
  return false;
}

}  // namespace pellucid
