#ifndef PELLUCID_ENGINE_DIRTY_PAGES_H_
#define PELLUCID_ENGINE_DIRTY_PAGES_H_

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "engine/page_pool.h"
#include "engine/range_claims.h"

namespace pellucid {

// The pages of a device that were written and are not below yet, found by
// their number (offset / kPageBytes). A page is a set of blocks of 512 bytes;
// a block is cached whole or not at all, and a cached one is dirty, in flight
// to the device below, or both (written again meanwhile). A page without blocks
// is given back at once.
//
// Safe to call from many threads. Pages are sharded by the line that they lie
// in; a shard's mutex is held while at most one line is copied, never across
// I/O and never while waiting for anything but the shard's own pages.
class DirtyPages {
 public:
  static constexpr size_t kPageBytes = PagePool::kPageBytes;
  static constexpr size_t kBlockBytes = 512;
  static constexpr size_t kBlocks = kPageBytes / kBlockBytes;
  using Blocks = uint8_t;  // A set: bit i is block i of a page.
  static_assert(kBlocks == 8 * sizeof(Blocks));

  // Borrows `claims`, which must outlive it: nothing is stored or written back
  // where a claim is. `line_bytes` is a power of two, at least a page.
  // Throws std::bad_alloc.
  DirtyPages(uint64_t device_bytes, uint32_t pages, size_t line_bytes,
             const RangeClaims& claims);

  const PagePool& pool() const { return pool_; }

  // Copies the cached blocks of a range within one page to their places in
  // `out` and returns which blocks of the page are cached. The rest may be read
  // from the device below from now on, and is never older there. Takes no lock
  // where nothing is cached.
  Blocks Read(uint64_t offset, std::span<std::byte> out);

  enum class Obstacle { kNone, kNoPage, kClaim, kCutBlock };
  struct Stored {
    size_t length;      // Of `in`, from its beginning.
    Obstacle obstacle;  // Why it is not all.
    // Of kCutBlock: a block that `in` covers in part and that is not cached.
    uint64_t cut_block = 0;  // Its offset.
    uint64_t version = 0;    // For FillBlock().
  };
  // Stores what it can of `in`, a range within one line.
  Stored Store(uint64_t offset, std::span<const std::byte> in);
  // Stores the bytes of a block as the device below has them, read after
  // Store() named it. Nothing happens if they may be out of date. Returns
  // kNone, or kNoPage.
  Obstacle FillBlock(uint64_t cut_block, std::span<const std::byte> content,
                     uint64_t version);

  // Appends the numbers of all pages with dirty blocks.
  void ListDirty(std::vector<uint64_t>& pages);
  // Turns the dirty blocks of a page into blocks in flight, copies the page and
  // returns them; nothing if a claim forbids it. Requires that none is in
  // flight.
  std::optional<Blocks> BeginWriteBack(uint64_t page,
                                       std::span<std::byte, kPageBytes> copy);
  // Drops the blocks in flight, or makes them dirty again if the write failed.
  void EndWriteBack(uint64_t page, bool failed);

  // For the owner of a claim of [offset, offset + length): waits until nothing
  // of it is in flight.
  void AwaitWriteBack(uint64_t offset, uint64_t length);
  // The range has changed below, by the owner of a claim.
  void NoteChangeBelow(uint64_t offset, uint64_t length);
  // The same; what is cached of the range is out of date. Drops it; of a block
  // that the range cuts the part within becomes zeros.
  void Supersede(uint64_t offset, uint64_t length);

  // The cached bytes at or behind `offset` that come first, up to `end`; empty
  // if there are none.
  struct Range {
    uint64_t begin;
    uint64_t end;
  };
  Range FirstCached(uint64_t offset, uint64_t end);

 private:
  static constexpr uint32_t kNoSlot = ~uint32_t{0};
  static constexpr size_t kShards = 64;

  // One for each page of the pool. Protected by the mutex of the shard that the
  // page is in.
  struct Page {
    uint64_t number;
    uint32_t next_in_bucket;
    uint32_t older;
    uint32_t newer;
    Blocks dirty;
    Blocks in_flight;
  };
  // On cache lines of its own.
  struct alignas(128) Shard {
    std::mutex mutex;
    std::condition_variable landed;  // Something is no longer in flight.
    // Moves whenever bytes change on the device below.
    uint64_t version = 0;
    uint32_t oldest = kNoSlot;
    uint32_t newest = kNoSlot;
  };

  size_t BucketOf(uint64_t page) const;
  Shard& ShardOf(uint64_t page);
  uint32_t Find(uint64_t page) const;
  // A page that is not there yet; kNoSlot if all are in use.
  uint32_t Add(Shard& shard, uint64_t page);
  void Remove(Shard& shard, uint32_t slot);
  bool CutAndNotCached(uint32_t slot, uint64_t offset, uint64_t end) const;
  Blocks BlocksOf(uint64_t begin, uint64_t end) const;
  void SupersedeIn(Shard& shard, uint32_t slot, uint64_t begin, uint64_t end);
  template <typename Visit>
  void VisitRange(uint64_t offset, uint64_t length, Visit visit);

  const uint64_t device_bytes_;
  const unsigned line_page_bits_;  // A line has 1 << line_page_bits_ pages.
  const RangeClaims& claims_;
  PagePool pool_;
  std::unique_ptr<Page[]> pages_;
  // First slot of each chain. Neighbours within a line are neighbours here, and
  // a bucket belongs to one shard; readers look at it without the lock.
  unsigned bucket_bits_;
  std::unique_ptr<std::atomic<uint32_t>[]> buckets_;
  std::array<Shard, kShards> shards_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_DIRTY_PAGES_H_
