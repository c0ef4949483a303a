// One compressed cluster: the first byte says how it is packed and how large it
// is, the rest is what is packed.

#include <algorithm>
#include <vector>

#include "engine/qcow2/compressed_clusters.h"
#include "tests/engine/memory_device.h"
#include "tests/fuzz/fuzz_target.h"

using namespace pellucid;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto type = data[0] % 2 == 0 ? qcow2::CompressionType::kZlib
                                     : qcow2::CompressionType::kZstd;
  const uint64_t cluster_size = uint64_t{512} << data[0] / 2 % 13;
  const auto* packed = reinterpret_cast<const std::byte*>(data + 1);
  MemoryDevice file(std::vector<std::byte>(packed, packed + size - 1));
  qcow2::CompressedClusters clusters(file, "disk.qcow2", type, cluster_size);
  qcow2::Mapping mapping;
  mapping.kind = qcow2::ClusterKind::kCompressed;
  mapping.host = {0};
  mapping.compressed_size = size - 1 + 511;
  std::vector<std::byte> whole(cluster_size);
  const bool unpacks = Attempt([&] { clusters.Read(mapping, 0, whole); });
  std::vector<std::byte> part(cluster_size / 2);
  const bool again = Attempt([&] { clusters.Read(mapping, 256, part); });
  Require(unpacks == again, "a cluster that unpacks once and not again");
  Require(!unpacks || std::equal(part.begin(), part.end(), whole.begin() + 256),
          "a cluster that unpacks to two contents");
  return 0;
}
