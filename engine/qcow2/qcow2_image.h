#ifndef PELLUCID_ENGINE_QCOW2_QCOW2_IMAGE_H_
#define PELLUCID_ENGINE_QCOW2_QCOW2_IMAGE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "crypto/sector_cipher.h"
#include "engine/qcow2/cluster_data.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/cluster_writer.h"
#include "engine/qcow2/compressed_clusters.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/mapping_users.h"
#include "engine/qcow2/refcount_repair.h"
#include "engine/qcow2/snapshots.h"
#include "engine/qcow2/state_reader.h"
#include "engine/writable_device.h"

namespace pellucid::qcow2 {

// The virtual disk of a qcow2 image, decrypted if the image encrypts by itself
// (embedded LUKS or legacy AES).
//
// Reads take no lock and allocate nothing while the L2 entries are in the
// cache, unless they touch compressed clusters.
class Qcow2Image : public WritableDevice {
 public:
  // What an image is put together from. The devices are owned by the image.
  struct Parts {
    std::string file_name;  // For messages.
    // One of the two; the second makes the image writable.
    std::unique_ptr<BlockDevice> file;
    std::unique_ptr<ResizableDevice> writable_file;
    Header header;                     // Of the file.
    std::vector<Snapshot> snapshots;   // Of the file; only to write.
    std::optional<Snapshot> snapshot;  // Shown in place of the active state.
    // Both null unless external; writable if the file is.
    std::unique_ptr<BlockDevice> data_file;
    std::unique_ptr<ResizableDevice> writable_data_file;
    std::unique_ptr<BlockDevice> backing;  // Null without one.
    // Null shows the clusters as they are stored. With 512-byte sectors.
    std::unique_ptr<crypto::SectorCipher> cipher;
    uint64_t l2_cache_bytes = 0;
    // Of the file, if it is dirty and writable; made by the image if null.
    std::unique_ptr<RefcountRepair> repair;
    // Overwrite clusters before they are free, since they may hold secrets.
    bool wipes_freed = false;
  };

  // Checks and loads the L1 table. Changes nothing: what has to be repaired
  // before an image can be written is repaired by the first change. Throws
  // CorruptImage and IoError, and what RefcountRepair() throws.
  explicit Qcow2Image(Parts parts);
  ~Qcow2Image() override;

  uint64_t size() const override { return size_; }
  void Read(uint64_t offset, std::span<std::byte> out) override;
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override;

  // Only if the image is writable.
  void Write(uint64_t offset, std::span<const std::byte> in) override;
  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override;
  void Flush() override;

  // The disk as it was in `snapshot`, an entry of the file's snapshot table,
  // for reading. It borrows file, cipher, backing and caches of this image, so
  // that it takes next to no memory of its own. May be called, and used, from
  // many threads, also while the image is written. Throws CorruptImage.
  std::unique_ptr<BlockDevice> OpenSnapshot(const Snapshot& snapshot);

 private:
  Qcow2Image(Parts&& parts, const L1Table& l1);
  void MakeWriter(Parts& parts, const L1Table& l1);

  const std::string file_name_;
  ResizableDevice* const writable_file_;       // file_, or null.
  ResizableDevice* const writable_data_file_;  // data_file_, or null.
  const std::unique_ptr<BlockDevice> file_;
  const std::unique_ptr<BlockDevice> data_file_;
  const std::unique_ptr<BlockDevice> backing_;
  const uint64_t size_;
  const Header header_;
  const uint64_t cluster_size_;
  ClusterMap map_;
  ClusterData data_;
  CompressedClusters compressed_;
  StateReader reader_;
  std::optional<MappingUsers> users_;      // Empty if read-only: then nothing
  std::unique_ptr<ClusterWriter> writer_;  // that is in use is ever freed.
};

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_QCOW2_IMAGE_H_
