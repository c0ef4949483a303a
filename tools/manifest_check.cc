#include "tools/manifest_check.h"

#include <algorithm>
#include <memory>

#include "engine/is_zero.h"
#include "tools/worker_threads.h"

namespace pellucid::cli {
namespace {

constexpr uint64_t kBatchBytes = uint64_t{1} << 20;

}  // namespace

ManifestCheck::ManifestCheck(ManifestReader& manifest, BlockDevice& copy,
                             uint64_t offset, bool find_all)
    : manifest_(manifest),
      copy_(copy),
      offset_(offset),
      comparable_(copy.size() < offset
                      ? 0
                      : std::min(copy.size() - offset, manifest.header().size)),
      find_all_(find_all) {}

std::vector<ByteRange> ManifestCheck::Run(
    unsigned threads, const std::function<void(Progress)>& watch) {
  RunWorkers(
      threads, [this] { Work(); }, [this] { limit_ = 0; },
      [&] { watch({.position = position_.load(), .copied = read_.load()}); });
  std::ranges::sort(differences_, {}, &ByteRange::offset);
  if (!find_all_ && !differences_.empty()) return {differences_.front()};
  std::vector<ByteRange> joined;
  for (const ByteRange& range : differences_) {
    if (!joined.empty() && joined.back().end() == range.offset) {
      joined.back().length += range.length;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

void ManifestCheck::Work() {
  const auto buffer_size =
      static_cast<size_t>(std::max(kBatchBytes, manifest_.header().chunk_size));
  std::vector<std::byte> buffer(buffer_size);
  std::vector<std::unique_ptr<crypto::Hasher>> hashers;
  for (const std::string& algorithm : manifest_.header().algorithms) {
    hashers.push_back(crypto::MakeHasher(algorithm));
  }
  // Chunks come in order, so none before the limit is left out.
  while (limit_ == UINT64_MAX) {
    const std::vector<ManifestChunk> chunks = manifest_.Next(buffer_size);
    if (chunks.empty()) return;
    if (chunks.front().is_zeros()) {
      CompareZeros(chunks.front().range, buffer);
    } else {
      CompareHashes(chunks, buffer, hashers);
    }
    position_ += chunks.back().range.end() - chunks.front().range.offset;
  }
}

void ManifestCheck::CompareHashes(
    const std::vector<ManifestChunk>& chunks, std::span<std::byte> buffer,
    const std::vector<std::unique_ptr<crypto::Hasher>>& hashers) {
  const uint64_t begin = chunks.front().range.offset;
  uint64_t end = begin;
  for (const ManifestChunk& chunk : chunks) {
    if (chunk.range.end() <= comparable_) end = chunk.range.end();
  }
  const auto bytes = buffer.first(static_cast<size_t>(end - begin));
  if (!bytes.empty()) copy_.Read(offset_ + begin, bytes);
  read_ += bytes.size();
  for (const ManifestChunk& chunk : chunks) {
    if (chunk.range.end() > end) break;
    const auto content =
        bytes.subspan(static_cast<size_t>(chunk.range.offset - begin),
                      static_cast<size_t>(chunk.range.length));
    for (size_t i = 0; i < hashers.size(); ++i) {
      std::vector<std::byte> digest(hashers[i]->digest_size());
      hashers[i]->Update(content);
      hashers[i]->Final(digest);
      if (digest != chunk.digests[i]) {
        Differs(chunk.range);
        break;
      }
    }
  }
}

void ManifestCheck::CompareZeros(ByteRange range, std::span<std::byte> buffer) {
  const uint64_t end = std::min(range.end(), comparable_);
  uint64_t at = range.offset;
  while (at < std::min(end, limit_.load())) {
    const Extent extent = copy_.ExtentAt(offset_ + at, end - at);
    if (extent.is_hole) {
      at += extent.length;
      continue;
    }
    // Its chunk, or what is left of it: differences are named by chunks.
    const uint64_t chunk_size = manifest_.header().chunk_size;
    const uint64_t chunk = at - at % chunk_size;
    const uint64_t chunk_end = std::min(chunk + chunk_size, end);
    if (!IsZeroOnDevice({.offset = at, .length = chunk_end - at}, buffer)) {
      Differs({.offset = chunk, .length = chunk_end - chunk});
    }
    at = chunk_end;
  }
}

bool ManifestCheck::IsZeroOnDevice(ByteRange range,
                                   std::span<std::byte> buffer) {
  const auto bytes = buffer.first(static_cast<size_t>(range.length));
  copy_.Read(offset_ + range.offset, bytes);
  read_ += bytes.size();
  return IsZero(bytes);
}

void ManifestCheck::Differs(ByteRange range) {
  const std::lock_guard lock(mutex_);
  if (!find_all_) limit_ = std::min(limit_.load(), range.offset);
  differences_.push_back(range);
}

}  // namespace pellucid::cli
