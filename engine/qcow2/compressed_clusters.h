#ifndef PELLUCID_ENGINE_QCOW2_COMPRESSED_CLUSTERS_H_
#define PELLUCID_ENGINE_QCOW2_COMPRESSED_CLUSTERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "engine/block_device.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/header.h"

namespace pellucid::qcow2 {

// Reads compressed clusters, which are never encrypted, and keeps the few that
// were unpacked last, so that reading one in small pieces unpacks it once.
// Safe to call from many threads; unpacking holds no lock.
class CompressedClusters {
 public:
  // Borrows `file`, which must outlive this.
  CompressedClusters(BlockDevice& file, std::string file_name,
                     CompressionType type, uint64_t cluster_size);

  // Fills `out` with the bytes from `in_cluster` on of the cluster that
  // `mapping` (of kind kCompressed) describes. Throws CorruptImage if the data
  // cannot be unpacked to a whole cluster, and IoError.
  void Read(const Mapping& mapping, uint64_t in_cluster,
            std::span<std::byte> out);

  // Drops what was unpacked from [host, host + length): something else will
  // stand there.
  void Forget(uint64_t host, uint64_t length);

 private:
  using Cluster = std::unique_ptr<std::byte[]>;
  struct Kept {
    uint64_t host = 0;  // Of the compressed data; unique in an image.
    std::shared_ptr<const Cluster> content;  // Null while empty.
  };

  void Unpack(const Mapping& mapping, std::span<std::byte> cluster);
  std::shared_ptr<const Cluster> Find(uint64_t host);
  void Keep(uint64_t host, std::shared_ptr<const Cluster> content);

  BlockDevice& file_;
  const std::string file_name_;
  const CompressionType type_;
  const uint64_t cluster_size_;

  std::mutex lock_;  // Protects what follows.
  std::array<Kept, 4> kept_;
  size_t oldest_ = 0;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_COMPRESSED_CLUSTERS_H_
