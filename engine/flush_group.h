#ifndef PELLUCID_ENGINE_FLUSH_GROUP_H_
#define PELLUCID_ENGINE_FLUSH_GROUP_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "engine/kept_error.h"
#include "engine/writable_device.h"

namespace pellucid {

// Flushes a device for many threads at once: those that come while a flush
// runs share the next one. Safe to call from many threads.
class FlushGroup {
 public:
  // Borrows `device`, which must outlive the group.
  explicit FlushGroup(WritableDevice& device) : device_(device) {}

  // Returns when a flush of the device is over that began after the call. If
  // one failed that began after the call, it throws that error, for the host
  // tells each failure once; and if a failure of FlushAndKeepError() was not
  // thrown yet, it throws that, once.
  void Flush();

  // The same for somebody who cannot report the error; returns whether all is
  // well.
  bool FlushAndKeepError();

  // Throws what FlushAndKeepError() has kept, once. Costs nothing otherwise.
  void ThrowKeptError();

 private:
  // The error of a flush that began after the call, or nothing.
  std::optional<KeptError> Await(std::unique_lock<std::mutex>& lock,
                                 bool keep_error);

  WritableDevice& device_;
  std::mutex mutex_;  // Protects what follows; not held while flushing.
  std::condition_variable done_;
  bool running_ = false;
  uint64_t begun_ = 0;  // Flushes are numbered from 1.
  uint64_t ended_ = 0;
  uint64_t failed_ = 0;  // The last that did, and how.
  std::optional<KeptError> failure_;
  std::optional<KeptError> unreported_;
  std::atomic<bool> has_unreported_ = false;  // To be looked at without mutex_.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_FLUSH_GROUP_H_
