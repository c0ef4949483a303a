#ifndef PELLUCID_TOOLS_MANIFEST_CHECK_H_
#define PELLUCID_TOOLS_MANIFEST_CHECK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "crypto/hash.h"
#include "engine/block_device.h"
#include "tools/manifest_reader.h"
#include "tools/progress_bar.h"

namespace pellucid::cli {

// Compares a copy with a manifest, with several threads.
class ManifestCheck {
 public:
  // Borrows both. What the manifest describes begins at `offset` of `copy`. A
  // copy that ends early is compared up to its last whole chunk. Unless
  // `find_all`, it ends with the first range that differs.
  ManifestCheck(ManifestReader& manifest, BlockDevice& copy, uint64_t offset,
                bool find_all);

  // Calls `watch` as RunWorkers() does. Returns the ranges that differ, in
  // order, as offsets of what the manifest describes: whole chunks, neighbours
  // as one; or only the first chunk. Throws what the manifest and the copy
  // throw. Call once.
  std::vector<ByteRange> Run(unsigned threads,
                             const std::function<void(Progress)>& watch);

 private:
  void Work();
  void CompareHashes(
      const std::vector<ManifestChunk>& chunks, std::span<std::byte> buffer,
      const std::vector<std::unique_ptr<crypto::Hasher>>& hashers);
  void CompareZeros(ByteRange range, std::span<std::byte> buffer);
  bool IsZeroOnDevice(ByteRange range, std::span<std::byte> buffer);
  void Differs(ByteRange range);

  ManifestReader& manifest_;
  BlockDevice& copy_;
  const uint64_t offset_;
  const uint64_t comparable_;  // Bytes that the copy has of the range.
  const bool find_all_;

  // What begins here or behind need not be compared any more.
  std::atomic<uint64_t> limit_ = UINT64_MAX;
  std::atomic<uint64_t> position_ = 0;
  std::atomic<uint64_t> read_ = 0;

  std::mutex mutex_;
  std::vector<ByteRange> differences_;  // Guarded by mutex_; in any order.
};

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MANIFEST_CHECK_H_
