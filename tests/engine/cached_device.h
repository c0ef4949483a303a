#ifndef PELLUCID_TESTS_ENGINE_CACHED_DEVICE_H_
#define PELLUCID_TESTS_ENGINE_CACHED_DEVICE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "engine/cluster_cache.h"
#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/writable_memory_device.h"

namespace pellucid {

inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kLine = 16 << 10;

inline WritableMemoryDevice::Event Written(uint64_t offset, uint64_t length) {
  return {.kind = WritableMemoryDevice::Kind::kWrite,
          .offset = offset,
          .length = length};
}
inline WritableMemoryDevice::Event Zeroed(uint64_t offset, uint64_t length) {
  return {.kind = WritableMemoryDevice::Kind::kZeroes,
          .offset = offset,
          .length = length};
}
inline constexpr WritableMemoryDevice::Event kFlushed = {
    .kind = WritableMemoryDevice::Kind::kFlush};

// A cache with lines of 16 KiB that does nothing by itself within a test, and
// the device below it.
struct CachedDevice {
  static ClusterCache::Options Quiet(uint64_t capacity_bytes) {
    ClusterCache::Options options;
    options.capacity_bytes = capacity_bytes;
    options.line_bytes = kLine;
    options.max_age = std::chrono::hours(1);
    options.retry_after = std::chrono::hours(1);
    return options;
  }

  explicit CachedDevice(Bytes content,
                        const ClusterCache::Options& options = Quiet(4 << 20)) {
    auto device = std::make_unique<WritableMemoryDevice>(std::move(content));
    below = device.get();
    cache = std::make_unique<ClusterCache>(std::move(device), options);
  }

  Bytes Read(uint64_t offset, uint64_t length) const {
    Bytes out(length);
    cache->Read(offset, out);
    return out;
  }

  WritableMemoryDevice* below;
  std::unique_ptr<ClusterCache> cache;
};

inline Bytes Filled(size_t size, int value) {
  return Bytes(size, static_cast<std::byte>(value));
}

inline int ErrnoOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const IoError& e) {
    return e.host_errno();
  }
  return 0;
}

// Whether `done` becomes true within a time that only a hanging test takes.
inline bool Eventually(const std::function<bool()>& done) {
  for (int i = 0; i < 10000; ++i) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_CACHED_DEVICE_H_
