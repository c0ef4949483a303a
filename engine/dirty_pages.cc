#include "engine/dirty_pages.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

namespace pellucid {
namespace {

constexpr uint64_t kPage = DirtyPages::kPageBytes;
constexpr uint64_t kBlock = DirtyPages::kBlockBytes;

// Lines at regular distances, such as those of block groups, must not meet in
// one bucket.
uint64_t MixedLine(uint64_t line) { return (line * 0x9e3779b97f4a7c15U) >> 32; }

}  // namespace

DirtyPages::DirtyPages(uint64_t device_bytes, uint32_t pages, size_t line_bytes,
                       const RangeClaims& claims)
    : device_bytes_(device_bytes),
      line_page_bits_(
          static_cast<unsigned>(std::countr_zero(line_bytes / kPageBytes))),
      claims_(claims),
      pool_(pages),
      pages_(std::make_unique<Page[]>(pages)) {
  const uint64_t buckets = std::max<uint64_t>(
      std::bit_ceil(uint64_t{pages} * 2), kShards << line_page_bits_);
  bucket_bits_ = static_cast<unsigned>(std::countr_zero(buckets));
  buckets_.reset(new std::atomic<uint32_t>[buckets]);
  for (uint64_t i = 0; i < buckets; ++i) buckets_[i] = kNoSlot;
}

size_t DirtyPages::BucketOf(uint64_t page) const {
  const uint64_t in_line = page & ((uint64_t{1} << line_page_bits_) - 1);
  const uint64_t line = MixedLine(page >> line_page_bits_);
  return ((line << line_page_bits_) | in_line) &
         ((uint64_t{1} << bucket_bits_) - 1);
}

DirtyPages::Shard& DirtyPages::ShardOf(uint64_t page) {
  return shards_[MixedLine(page >> line_page_bits_) % kShards];
}

uint32_t DirtyPages::Find(uint64_t page) const {
  uint32_t slot = buckets_[BucketOf(page)];
  while (slot != kNoSlot && pages_[slot].number != page) {
    slot = pages_[slot].next_in_bucket;
  }
  return slot;
}

uint32_t DirtyPages::Add(Shard& shard, uint64_t page) {
  const std::optional<uint32_t> taken = pool_.Take();
  if (!taken) return kNoSlot;
  const uint32_t slot = *taken;
  std::atomic<uint32_t>& bucket = buckets_[BucketOf(page)];
  pages_[slot] = {.number = page,
                  .next_in_bucket = bucket,
                  .older = shard.newest,
                  .newer = kNoSlot,
                  .dirty = 0,
                  .in_flight = 0};
  bucket = slot;
  (shard.newest != kNoSlot ? pages_[shard.newest].newer : shard.oldest) = slot;
  shard.newest = slot;
  return slot;
}

void DirtyPages::Remove(Shard& shard, uint32_t slot) {
  const Page& page = pages_[slot];
  (page.older != kNoSlot ? pages_[page.older].newer : shard.oldest) =
      page.newer;
  (page.newer != kNoSlot ? pages_[page.newer].older : shard.newest) =
      page.older;
  std::atomic<uint32_t>& bucket = buckets_[BucketOf(page.number)];
  if (bucket == slot) {
    bucket = page.next_in_bucket;
  } else {
    uint32_t before = bucket;
    while (pages_[before].next_in_bucket != slot) {
      before = pages_[before].next_in_bucket;
    }
    pages_[before].next_in_bucket = page.next_in_bucket;
  }
  pool_.Return(slot);
}

// The blocks of a page that [begin, end) touches; offsets are within the page.
DirtyPages::Blocks DirtyPages::BlocksOf(uint64_t begin, uint64_t end) const {
  const uint64_t first = begin / kBlock;
  const uint64_t behind = (end + kBlock - 1) / kBlock;
  return static_cast<Blocks>((1U << behind) - (1U << first));
}

DirtyPages::Blocks DirtyPages::Read(uint64_t offset, std::span<std::byte> out) {
  const uint64_t number = offset / kPage;
  if (buckets_[BucketOf(number)] == kNoSlot) return 0;
  const std::lock_guard lock(ShardOf(number).mutex);
  const uint32_t slot = Find(number);
  if (slot == kNoSlot) return 0;
  const Blocks cached = pages_[slot].dirty | pages_[slot].in_flight;
  const std::byte* bytes = pool_.Bytes(slot).data();
  uint64_t at = offset % kPage;
  const uint64_t end = at + out.size();
  for (std::byte* to = out.data(); at < end;) {
    // As many blocks as are cached one behind the other, or one that is not.
    const bool is_cached = (cached >> (at / kBlock) & 1U) != 0;
    uint64_t next = (at / kBlock + 1) * kBlock;
    while (is_cached && next < end && (cached >> (next / kBlock) & 1U) != 0) {
      next += kBlock;
    }
    next = std::min(next, end);
    if (is_cached) std::memcpy(to, bytes + at, next - at);
    to += next - at;
    at = next;
  }
  return cached;
}

// Finds out whether a block at either end of [begin, end), offsets within the
// page, has to be read before the range is stored. Of two such blocks it is
// the one that Store() names.
bool DirtyPages::CutAndNotCached(uint32_t slot, uint64_t begin,
                                 uint64_t end) const {
  const uint64_t block = begin / kBlock;
  if (begin % kBlock == 0 && end >= (block + 1) * kBlock) return false;
  if (slot == kNoSlot) return true;
  const Blocks cached = pages_[slot].dirty | pages_[slot].in_flight;
  return (cached >> block & 1U) == 0;
}

DirtyPages::Stored DirtyPages::Store(uint64_t offset,
                                     std::span<const std::byte> in) {
  Shard& shard = ShardOf(offset / kPage);
  const std::lock_guard lock(shard.mutex);
  size_t done = 0;
  while (done < in.size()) {
    const uint64_t at = offset + done;
    const uint64_t page_begin = at / kPage * kPage;
    const size_t length = std::min(in.size() - done, page_begin + kPage - at);
    // An owner of a new claim has to pass this shard's lock before anything
    // happens below (AwaitWriteBack()), so the answer holds while it is held.
    if (claims_.Overlap(page_begin, page_begin + kPage)) {
      return {.length = done, .obstacle = Obstacle::kClaim};
    }
    const uint64_t begin = at - page_begin;
    const uint64_t end = begin + length;
    // A block that the device's end cuts is whole when it is full up to there.
    const uint64_t end_of_data = at + length == device_bytes_ ? kPage : end;
    const uint32_t found = Find(at / kPage);
    if (CutAndNotCached(found, begin, end_of_data)) {
      return {.length = done,
              .obstacle = Obstacle::kCutBlock,
              .cut_block = at / kBlock * kBlock,
              .version = shard.version};
    }
    const uint64_t last_block = (end - 1) / kBlock * kBlock;
    if (last_block > begin && CutAndNotCached(found, last_block, end_of_data)) {
      return {.length = done,
              .obstacle = Obstacle::kCutBlock,
              .cut_block = page_begin + last_block,
              .version = shard.version};
    }
    const uint32_t slot = found != kNoSlot ? found : Add(shard, at / kPage);
    if (slot == kNoSlot) {
      return {.length = done, .obstacle = Obstacle::kNoPage};
    }
    std::memcpy(pool_.Bytes(slot).data() + begin, in.data() + done, length);
    pages_[slot].dirty |= BlocksOf(begin, end);
    done += length;
  }
  return {.length = done, .obstacle = Obstacle::kNone};
}

DirtyPages::Obstacle DirtyPages::FillBlock(uint64_t cut_block,
                                           std::span<const std::byte> content,
                                           uint64_t version) {
  const uint64_t number = cut_block / kPage;
  Shard& shard = ShardOf(number);
  const std::lock_guard lock(shard.mutex);
  // What changed below since may have been this block: written by somebody
  // else and written back, say. A claim that is still held has not moved the
  // version yet.
  if (shard.version != version ||
      claims_.Overlap(number * kPage, (number + 1) * kPage)) {
    return Obstacle::kNone;
  }
  uint32_t slot = Find(number);
  if (slot == kNoSlot) slot = Add(shard, number);
  if (slot == kNoSlot) return Obstacle::kNoPage;
  Page& page = pages_[slot];
  const uint64_t begin = cut_block % kPage;
  const Blocks block = BlocksOf(begin, begin + kBlock);
  if (((page.dirty | page.in_flight) & block) != 0) return Obstacle::kNone;
  std::ranges::copy(content, pool_.Bytes(slot).data() + begin);
  // Dirty although it is as below: a block is cached for that reason only.
  page.dirty |= block;
  return Obstacle::kNone;
}

void DirtyPages::ListDirty(std::vector<uint64_t>& pages) {
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    for (uint32_t slot = shard.oldest; slot != kNoSlot;
         slot = pages_[slot].newer) {
      if (pages_[slot].dirty != 0) pages.push_back(pages_[slot].number);
    }
  }
}

std::optional<DirtyPages::Blocks> DirtyPages::BeginWriteBack(
    uint64_t page, std::span<std::byte, kPageBytes> copy) {
  const std::lock_guard lock(ShardOf(page).mutex);
  if (claims_.Overlap(page * kPage, (page + 1) * kPage)) return std::nullopt;
  const uint32_t slot = Find(page);
  if (slot == kNoSlot) return Blocks{0};
  assert(pages_[slot].in_flight == 0);
  std::ranges::copy(pool_.Bytes(slot), copy.begin());
  pages_[slot].in_flight = pages_[slot].dirty;
  pages_[slot].dirty = 0;
  return pages_[slot].in_flight;
}

void DirtyPages::EndWriteBack(uint64_t page, bool failed) {
  Shard& shard = ShardOf(page);
  const std::lock_guard lock(shard.mutex);
  const uint32_t slot = Find(page);
  assert(slot != kNoSlot);
  if (failed) pages_[slot].dirty |= pages_[slot].in_flight;
  pages_[slot].in_flight = 0;
  ++shard.version;
  if (pages_[slot].dirty == 0) Remove(shard, slot);
  shard.landed.notify_all();
}

// Calls visit(shard, lock, slots of the range there) once or more often for
// each shard that pages of the range can be in.
template <typename Visit>
void DirtyPages::VisitRange(uint64_t offset, uint64_t length, Visit visit) {
  const uint64_t end_page = (offset + length + kPage - 1) / kPage;
  const uint64_t first_page = offset / kPage;
  const uint64_t line_pages = uint64_t{1} << line_page_bits_;
  if ((end_page - first_page) >> line_page_bits_ <= kShards) {
    for (uint64_t page = first_page; page < end_page;) {
      const uint64_t next =
          std::min((page / line_pages + 1) * line_pages, end_page);
      Shard& shard = ShardOf(page);
      std::unique_lock lock(shard.mutex);
      visit(shard, lock, [&](auto each) {
        for (uint64_t number = page; number < next; ++number) {
          const uint32_t slot = Find(number);
          if (slot != kNoSlot) each(slot);
        }
      });
      page = next;
    }
    return;
  }
  for (Shard& shard : shards_) {
    std::unique_lock lock(shard.mutex);
    visit(shard, lock, [&](auto each) {
      uint32_t next = kNoSlot;  // `each` may remove the page.
      for (uint32_t slot = shard.oldest; slot != kNoSlot; slot = next) {
        next = pages_[slot].newer;
        const uint64_t number = pages_[slot].number;
        if (number >= first_page && number < end_page) each(slot);
      }
    });
  }
}

void DirtyPages::AwaitWriteBack(uint64_t offset, uint64_t length) {
  VisitRange(offset, length, [&](Shard& shard, auto& lock, auto for_each) {
    shard.landed.wait(lock, [&] {
      Blocks in_flight = 0;
      for_each([&](uint32_t slot) { in_flight |= pages_[slot].in_flight; });
      return in_flight == 0;
    });
  });
}

void DirtyPages::NoteChangeBelow(uint64_t offset, uint64_t length) {
  VisitRange(offset, length,
             [&](Shard& shard, auto&, auto) { ++shard.version; });
}

void DirtyPages::Supersede(uint64_t offset, uint64_t length) {
  VisitRange(offset, length, [&](Shard& shard, auto&, auto for_each) {
    ++shard.version;
    for_each([&](uint32_t slot) {
      SupersedeIn(shard, slot, offset, offset + length);
    });
  });
}

void DirtyPages::SupersedeIn(Shard& shard, uint32_t slot, uint64_t begin,
                             uint64_t end) {
  Page& page = pages_[slot];
  assert(page.in_flight == 0);
  if (end == device_bytes_) end = (end + kBlock - 1) / kBlock * kBlock;
  for (uint64_t block = 0; block < kBlocks; ++block) {
    const uint64_t at = page.number * kPage + block * kBlock;
    const uint64_t from = std::max(at, begin);
    const uint64_t to = std::min(at + kBlock, end);
    if (from >= to || (page.dirty >> block & 1U) == 0) continue;
    if (to - from == kBlock) {
      page.dirty &= static_cast<Blocks>(~(1U << block));
    } else {
      std::ranges::fill(
          pool_.Bytes(slot).subspan(from - page.number * kPage, to - from),
          std::byte{0});
    }
  }
  if (page.dirty == 0) Remove(shard, slot);
}

DirtyPages::Range DirtyPages::FirstCached(uint64_t offset, uint64_t end) {
  Range first = {.begin = end, .end = end};
  if (pool_.used() == 0) return first;
  // The blocks of a page from `from` on; keeps them if they come first.
  const auto look_at = [&](uint32_t slot) {
    const uint64_t page_begin = pages_[slot].number * kPage;
    const auto skip = static_cast<unsigned>(
        page_begin < offset ? (offset - page_begin) / kBlock : 0);
    const unsigned cached =
        static_cast<unsigned>(pages_[slot].dirty | pages_[slot].in_flight) >>
        skip << skip;
    if (cached == 0) return;
    const auto from = static_cast<unsigned>(std::countr_zero(cached));
    const auto blocks = static_cast<unsigned>(std::countr_one(cached >> from));
    const uint64_t begin = std::max(page_begin + from * kBlock, offset);
    if (begin >= first.begin) return;
    first = {.begin = begin,
             .end = std::min(page_begin + (from + blocks) * kBlock, end)};
  };
  const uint64_t end_page = (end + kPage - 1) / kPage;
  if (end_page - offset / kPage <= pool_.used()) {
    for (uint64_t page = offset / kPage; page < end_page; ++page) {
      if (buckets_[BucketOf(page)] == kNoSlot) continue;
      const std::lock_guard lock(ShardOf(page).mutex);
      const uint32_t slot = Find(page);
      if (slot != kNoSlot) look_at(slot);
      if (first.begin < end) return first;
    }
    return first;
  }
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    for (uint32_t slot = shard.oldest; slot != kNoSlot;
         slot = pages_[slot].newer) {
      const uint64_t number = pages_[slot].number;
      if (number >= offset / kPage && number < end_page) look_at(slot);
    }
  }
  return first;
}

}  // namespace pellucid
