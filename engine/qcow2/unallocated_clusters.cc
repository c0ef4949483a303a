#include "engine/qcow2/unallocated_clusters.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/is_zero.h"
#include "engine/sector_pieces.h"

namespace pellucid::qcow2 {
namespace {

constexpr size_t kSectorSize = 512;

}  // namespace

UnallocatedClusters::UnallocatedClusters(
    std::unique_ptr<BlockDevice> file, const ClusterCounts& references,
    uint64_t cluster_size, std::unique_ptr<crypto::SectorCipher> cipher)
    : file_(std::move(file)), cipher_(std::move(cipher)) {
  const uint64_t size = file_->size();
  uint64_t begin = 0;
  const auto end_run = [&](uint64_t end) {
    if (begin < end) runs_.push_back({.begin = begin, .end = end});
  };
  references.ForEachCounted(0, references.size(), [&](uint64_t cluster) {
    const uint64_t offset = cluster * cluster_size;
    end_run(std::min(offset, size));
    begin = offset + cluster_size;
  });
  end_run(size);
}

Extent UnallocatedClusters::RunAt(uint64_t offset, uint64_t max_length) const {
  const auto run = std::ranges::upper_bound(runs_, offset, {}, &Run::end);
  if (run == runs_.end()) return {.length = max_length, .is_hole = true};
  const bool is_hole = offset < run->begin;
  const uint64_t end = is_hole ? run->begin : run->end;
  return {.length = std::min(max_length, end - offset), .is_hole = is_hole};
}

Extent UnallocatedClusters::ExtentAt(uint64_t offset, uint64_t max_length) {
  const Extent run = RunAt(offset, std::min(max_length, size() - offset));
  return run.is_hole ? run : file_->ExtentAt(offset, run.length);
}

void UnallocatedClusters::Read(uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const Extent run = RunAt(offset, out.size());
    const std::span piece = out.first(run.length);
    if (run.is_hole) {
      std::memset(piece.data(), 0, piece.size());
    } else {
      ReadRun(offset, piece);
    }
    offset += run.length;
    out = out.subspan(run.length);
  }
}

void UnallocatedClusters::ReadRun(uint64_t offset, std::span<std::byte> out) {
  if (!cipher_) return file_->Read(offset, out);
  ReadInSectors(offset, out, kSectorSize,
                [&](uint64_t at, std::span<std::byte> sectors) {
                  ReadZeroPadded(*file_, at, sectors);
                  for (; !sectors.empty(); at += kSectorSize) {
                    const std::span sector = sectors.first(kSectorSize);
                    if (!IsZero(sector)) {
                      cipher_->Decrypt(at / kSectorSize, sector, sector);
                    }
                    sectors = sectors.subspan(kSectorSize);
                  }
                });
}

}  // namespace pellucid::qcow2
