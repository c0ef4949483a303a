#ifndef PELLUCID_ENGINE_QCOW2_QCOW2_IMAGE_H_
#define PELLUCID_ENGINE_QCOW2_QCOW2_IMAGE_H_

#include <memory>
#include <optional>
#include <string>

#include "crypto/sector_cipher.h"
#include "engine/block_device.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/compressed_clusters.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/snapshots.h"

namespace pellucid::qcow2 {

// The virtual disk of a qcow2 image, decrypted if the image encrypts by itself
// (embedded LUKS or legacy AES).
//
// Reads take no lock and allocate nothing while the L2 entries are in the
// cache, unless they touch compressed clusters.
class Qcow2Image : public BlockDevice {
 public:
  // What an image is put together from. The devices are owned by the image.
  struct Parts {
    std::string file_name;  // For messages.
    std::unique_ptr<BlockDevice> file;
    Header header;                     // Of `file`.
    std::optional<Snapshot> snapshot;  // Shown in place of the active state.
    std::unique_ptr<BlockDevice> data_file;  // Null unless external.
    std::unique_ptr<BlockDevice> backing;    // Null without one.
    // Null shows the clusters as they are stored. With 512-byte sectors.
    std::unique_ptr<crypto::SectorCipher> cipher;
    uint64_t l2_cache_bytes = 0;
  };

  // Checks and loads the L1 table. Throws CorruptImage and IoError.
  explicit Qcow2Image(Parts parts);

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;

 private:
  void ReadData(GuestOffset guest, HostOffset host, std::span<std::byte> out);

  const std::string file_name_;
  const std::unique_ptr<BlockDevice> file_;
  const std::unique_ptr<BlockDevice> data_file_;
  const std::unique_ptr<BlockDevice> backing_;
  const std::unique_ptr<crypto::SectorCipher> cipher_;
  BlockDevice& clusters_;  // data_file_ or file_.
  const uint64_t size_;
  const uint64_t cluster_size_;
  const bool tweak_is_guest_;
  ClusterMap map_;
  CompressedClusters compressed_;
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_QCOW2_IMAGE_H_
