#include "engine/qcow2/compressed_clusters.h"

#include <fmt/format.h>
#include <libdeflate.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "engine/errors.h"

namespace pellucid::qcow2 {
namespace {

struct FreeDecompressor {
  void operator()(libdeflate_decompressor* d) const {
    libdeflate_free_decompressor(d);
  }
  void operator()(ZSTD_DCtx* d) const { ZSTD_freeDCtx(d); }
};

// One of each per thread, since making them costs more than using them.
libdeflate_decompressor& DeflateOfThread() {
  thread_local const std::unique_ptr<libdeflate_decompressor, FreeDecompressor>
      decompressor(libdeflate_alloc_decompressor());
  if (!decompressor) throw std::bad_alloc();
  return *decompressor;
}

ZSTD_DCtx& ZstdOfThread() {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeDecompressor> context(
      ZSTD_createDCtx());
  if (!context) throw std::bad_alloc();
  return *context;
}

// Both return why it failed, or null. `packed` may have padding behind it.
const char* UnpackZlib(std::span<const std::byte> packed,
                       std::span<std::byte> cluster) {
  size_t used = 0;
  switch (libdeflate_deflate_decompress_ex(&DeflateOfThread(), packed.data(),
                                           packed.size(), cluster.data(),
                                           cluster.size(), &used, nullptr)) {
    case LIBDEFLATE_SUCCESS:
      return nullptr;
    case LIBDEFLATE_SHORT_OUTPUT:
      return "unpacks to less than a cluster";
    case LIBDEFLATE_INSUFFICIENT_SPACE:
      return "unpacks to more than a cluster";
    default:
      return "is not a raw deflate stream";
  }
}

// Frame by frame into the cluster itself, where the library needs no window of
// its own: a frame can ask for one of 128 MiB.
const char* UnpackZstd(std::span<const std::byte> packed,
                       std::span<std::byte> cluster) {
  while (!cluster.empty()) {
    if (packed.empty()) return "unpacks to less than a cluster";
    const size_t frame =
        ZSTD_findFrameCompressedSize(packed.data(), packed.size());
    if (ZSTD_isError(frame) != 0) return "is not a zstd frame";
    const size_t unpacked = ZSTD_decompressDCtx(
        &ZstdOfThread(), cluster.data(), cluster.size(), packed.data(), frame);
    if (ZSTD_isError(unpacked) != 0) {
      return ZSTD_getErrorCode(unpacked) == ZSTD_error_dstSize_tooSmall
                 ? "unpacks to more than a cluster"
                 : "is not a zstd frame";
    }
    packed = packed.subspan(frame);
    cluster = cluster.subspan(unpacked);
  }
  return nullptr;
}

}  // namespace

CompressedClusters::CompressedClusters(BlockDevice& file, std::string file_name,
                                       CompressionType type,
                                       uint64_t cluster_size)
    : file_(file),
      file_name_(std::move(file_name)),
      type_(type),
      cluster_size_(cluster_size) {}

void CompressedClusters::Read(const Mapping& mapping, uint64_t in_cluster,
                              std::span<std::byte> out) {
  if (out.size() == cluster_size_) return Unpack(mapping, out);
  std::shared_ptr<const Cluster> cluster = Find(mapping.host.value);
  if (!cluster) {
    auto content = std::make_unique_for_overwrite<std::byte[]>(cluster_size_);
    Unpack(mapping, {content.get(), cluster_size_});
    cluster = std::make_shared<const Cluster>(std::move(content));
    Keep(mapping.host.value, cluster);
  }
  std::memcpy(out.data(), cluster->get() + in_cluster, out.size());
}

void CompressedClusters::Unpack(const Mapping& mapping,
                                std::span<std::byte> cluster) {
  thread_local std::vector<std::byte> packed;
  // The last sector that the entry counts may end behind the file.
  packed.resize(
      std::min(mapping.compressed_size, file_.size() - mapping.host.value));
  file_.Read(mapping.host.value, packed);
  const bool zstd = type_ == CompressionType::kZstd;
  const char* failure =
      zstd ? UnpackZstd(packed, cluster) : UnpackZlib(packed, cluster);
  if (failure == nullptr) return;
  throw CorruptImage(
      fmt::format("{}: compressed cluster at offset {}, {} bytes of {}: {}",
                  file_name_, mapping.host.value, mapping.compressed_size,
                  zstd ? "zstd" : "zlib", failure));
}

std::shared_ptr<const CompressedClusters::Cluster> CompressedClusters::Find(
    uint64_t host) {
  const std::lock_guard guard(lock_);
  for (const Kept& kept : kept_) {
    if (kept.content && kept.host == host) return kept.content;
  }
  return nullptr;
}

void CompressedClusters::Keep(uint64_t host,
                              std::shared_ptr<const Cluster> content) {
  const std::lock_guard guard(lock_);
  kept_[oldest_] = {.host = host, .content = std::move(content)};
  oldest_ = (oldest_ + 1) % kept_.size();
}

void CompressedClusters::Forget(uint64_t host, uint64_t length) {
  const std::lock_guard guard(lock_);
  for (Kept& kept : kept_) {
    if (kept.host >= host && kept.host < host + length) kept.content.reset();
  }
}

}  // namespace pellucid::qcow2
