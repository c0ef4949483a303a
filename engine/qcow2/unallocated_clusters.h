#ifndef PELLUCID_ENGINE_QCOW2_UNALLOCATED_CLUSTERS_H_
#define PELLUCID_ENGINE_QCOW2_UNALLOCATED_CLUSTERS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "crypto/sector_cipher.h"
#include "engine/block_device.h"
#include "engine/qcow2/cluster_counts.h"

namespace pellucid::qcow2 {

// The clusters of an image's file that nothing refers to, each where it stands
// in the file, decrypted by that place; all else is a hole. What a deleted
// snapshot leaves behind.
//
// Clusters that are a hole of the file are holes here, and sectors of zeros are
// zeros: nothing was ever stored there. What was not encrypted in the first
// place (old tables, compressed clusters) decrypts to noise.
//
// Safe to call from many threads.
class UnallocatedClusters : public BlockDevice {
 public:
  // `references` counts those to each cluster of the file. Without a cipher the
  // clusters are shown as they are stored; it has sectors of 512 bytes.
  UnallocatedClusters(std::unique_ptr<BlockDevice> file,
                      const ClusterCounts& references, uint64_t cluster_size,
                      std::unique_ptr<crypto::SectorCipher> cipher);

  uint64_t size() const override { return file_->size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;

 private:
  // Bytes of the file.
  struct Run {
    uint64_t begin;
    uint64_t end;
  };

  // How the bytes at `offset` go on: to the end of the run that they are in, or
  // to the beginning of the next one.
  Extent RunAt(uint64_t offset, uint64_t max_length) const;
  void ReadRun(uint64_t offset, std::span<std::byte> out);

  const std::unique_ptr<BlockDevice> file_;
  const std::unique_ptr<crypto::SectorCipher> cipher_;
  std::vector<Run> runs_;  // Ascending, with something between them.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_UNALLOCATED_CLUSTERS_H_
