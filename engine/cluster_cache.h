#ifndef PELLUCID_ENGINE_CLUSTER_CACHE_H_
#define PELLUCID_ENGINE_CLUSTER_CACHE_H_

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "engine/dirty_pages.h"
#include "engine/flush_group.h"
#include "engine/kept_error.h"
#include "engine/page_pool.h"
#include "engine/range_claims.h"
#include "engine/writable_device.h"

namespace pellucid {

// Gathers small writes in memory and sends them down as few large ones, for a
// device whose small writes are expensive. Keeps nothing that is clean: the
// kernel's page cache is above.
//
// A line is an aligned piece of the device, about a cluster. Writes of whole
// lines go down at once, and so do zeroes; the rest is kept in pages of 4 KiB
// with a bitmap of dirty blocks of 512 bytes each, so that scattered small
// writes gather without a read and cost memory only for what they wrote. (A
// write that cuts a block reads that block; the encryption below would have to
// read it anyway.)
//
// Safe to call from many threads. A thread of its own writes back what is old
// or too much; it is started by the constructor, so after any fork(), or if
// Options say so by Start(). The
// destructor stops it, does no I/O and drops what is dirty: call Flush() first.
class ClusterCache : public WritableDevice {
 public:
  enum class Mode {
    kWriteback,
    kWritethrough,  // Each write is durable when it returns; nothing is kept.
  };

  static constexpr uint64_t kDefaultCapacityBytes = 64 << 20;

  struct Options {
    Mode mode = Mode::kWriteback;
    // Bound of what is kept, at least a page. Beside it the cache takes 1 MiB
    // for the write-back and 3% of the capacity for its tables.
    uint64_t capacity_bytes = kDefaultCapacityBytes;
    // A power of two from 4 KiB to 512 KiB.
    size_t line_bytes = 64 << 10;
    // No write stays undurable for longer (but for the time that it takes to
    // write back): a crash costs at most the last `max_age`.
    std::chrono::milliseconds max_age{5000};
    // From a write-back in the background that failed to the next attempt.
    std::chrono::milliseconds retry_after{1000};
    // Whoever makes it calls Start() before the first write.
    bool starts_later = false;
  };

  // Throws std::bad_alloc and std::system_error.
  explicit ClusterCache(std::unique_ptr<WritableDevice> below)
      : ClusterCache(std::move(below), Options()) {}
  ClusterCache(std::unique_ptr<WritableDevice> below, const Options& options);
  ~ClusterCache() override;

  // Starts the thread; to be called once. Throws std::system_error.
  void Start();

  uint64_t size() const override { return size_; }

  // Takes no lock and copies nothing where nothing is dirty.
  void Read(uint64_t offset, std::span<std::byte> out) override;
  // What is dirty is data.
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;
  // Waits while the cache is full. Throws the error of the write-back if it is
  // full and nothing can be written back.
  void Write(uint64_t offset, std::span<const std::byte> in) override;
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override;
  // Throws the error of a write-back that failed since the last Flush() as
  // well, in the background and even if a later attempt succeeded.
  void Flush() override;

  // Throws the error of a write-back in the background, once, if no Flush() has
  // reported it yet; for close(2). Costs nothing otherwise.
  void ReportDeferredError();

  // What is kept now, in whole pages.
  uint64_t cached_bytes() const {
    return uint64_t{pages_.pool().used()} * DirtyPages::kPageBytes;
  }

 private:
  using Clock = std::chrono::steady_clock;
  // Pages that are in the gather buffer.
  struct Gathered {
    uint64_t page;
    DirtyPages::Blocks blocks;
    bool failed;
  };
  // A write-back goes down in runs of at most this.
  static constexpr size_t kGatherPages = 256;

  void WriteInLine(uint64_t offset, std::span<const std::byte> in);
  void ReadCutBlock(uint64_t block, uint64_t version);
  template <typename WriteBelow>
  void WritePast(uint64_t offset, uint64_t length, WriteBelow write_below);

  void NoteDirty();
  void AwaitSpace();
  void SpaceFreed();

  std::optional<KeptError> WriteBackAll(bool yield);
  size_t Gather(size_t first);
  std::optional<KeptError> WriteGathered();

  void RunInBackground();
  bool WriteBackInBackground();

  const std::unique_ptr<WritableDevice> below_;
  const uint64_t size_;
  const Options options_;
  RangeClaims claims_;
  DirtyPages pages_;
  FlushGroup flushes_;

  // Held across a whole write-back, I/O included: one at a time, so that it
  // goes down in ascending order and no page is in flight twice.
  std::mutex write_back_mutex_;
  PlaintextMemory gather_buffer_;  // These are protected by it.
  std::array<Gathered, kGatherPages> gathered_;
  size_t gathered_pages_ = 0;
  std::vector<uint64_t> to_write_;            // Page numbers, ascending.
  bool wrote_any_ = false;                    // Of to_write_.
  std::optional<KeptError> unreported_;       // Of the background.
  std::atomic<bool> has_unreported_{false};   // To be looked at without it.
  std::atomic<uint32_t> flushes_waiting_{0};  // For that mutex.

  // Something went down that no flush has covered since.
  std::atomic<bool> unflushed_{false};
  const uint32_t start_pages_;        // So many pages start a write-back.
  std::atomic<bool> pressed_{false};  // The thread has been told of them.
  // The thread will wake up by itself: it looks whether there is anything left
  // to write back or to flush.
  std::atomic<bool> armed_{false};  // Changes under control_mutex_.
  std::atomic<uint32_t> space_waiters_{0};

  std::mutex control_mutex_;  // Protects these.
  std::condition_variable wake_;
  std::condition_variable space_;
  bool stop_ = false;
  Clock::time_point due_;  // If armed_.
  uint64_t attempts_ = 0;  // Write-backs of the background, when they begin.
  uint64_t futile_ = 0;    // The last that found it full and wrote nothing.
  std::optional<KeptError> last_failure_;

  std::thread thread_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_CLUSTER_CACHE_H_
