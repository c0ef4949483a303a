#ifndef PELLUCID_ENGINE_RANGE_CLAIMS_H_
#define PELLUCID_ENGINE_RANGE_CLAIMS_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace pellucid {

// Ranges of bytes that somebody is changing on the device below a cache, past
// the cache. Claims never overlap. Safe to call from many threads; while there
// is no claim, a look at them costs one atomic load. Needs no memory of its
// own: a claim is linked in where it stands on its owner's stack.
class RangeClaims {
 public:
  // Holds [begin, end) from construction to destruction.
  class Claim {
   public:
    // Waits for claims that overlap. Whoever holds a lock that the owner of
    // another claim may want must not make one.
    Claim(RangeClaims& claims, uint64_t begin, uint64_t end);
    ~Claim();
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

   private:
    friend class RangeClaims;
    RangeClaims& claims_;
    const uint64_t begin_;
    const uint64_t end_;
    Claim* previous_ = nullptr;  // Of the list, as next_ is.
    Claim* next_ = nullptr;
  };

  // Whether a claim overlaps [begin, end). The answer is about a moment that
  // may be over; it holds on only if the owner of a new claim has to pass a
  // lock that the caller holds.
  bool Overlap(uint64_t begin, uint64_t end) const;

  // Returns when no claim overlaps; then a new one may again.
  void AwaitNone(uint64_t begin, uint64_t end) const;

 private:
  bool OverlapLocked(uint64_t begin, uint64_t end) const;

  mutable std::mutex mutex_;  // Protects the list.
  mutable std::condition_variable released_;
  Claim* first_ = nullptr;
  std::atomic<uint32_t> count_{0};  // Changes under the mutex.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_RANGE_CLAIMS_H_
