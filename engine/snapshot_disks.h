#ifndef PELLUCID_ENGINE_SNAPSHOT_DISKS_H_
#define PELLUCID_ENGINE_SNAPSHOT_DISKS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/luks/located_header.h"
#include "engine/luks/luks_device.h"
#include "engine/qcow2/qcow2_image.h"
#include "engine/qcow2/snapshots.h"

namespace pellucid {

// The plaintext of the internal snapshots of an image that is open, beside that
// of its active state and with the same keys, caches and files. Safe to call
// from many threads.
class SnapshotDisks {
 public:
  // The LUKS volume that the guest's disk is.
  struct LuksLayer {
    luks::LuksDevice* device;  // The active state's; borrowed.
    luks::VolumeHeader header;
    bool in_place;  // The header is on the disk, so that each snapshot has one.
  };

  // Borrows `image`. `snapshots` is its snapshot table, `file_name` for
  // messages.
  SnapshotDisks(qcow2::Qcow2Image& image, std::string file_name,
                std::vector<qcow2::Snapshot> snapshots,
                std::optional<LuksLayer> luks);

  // In the order of the snapshot table.
  size_t count() const { return snapshots_.size(); }
  const SnapshotInfo& info(size_t index) const {
    return snapshots_.at(index).info;
  }

  // The disk in snapshot number `index`, from 0; it borrows the image's device.
  // Nothing that is opened here ever asks for a passphrase. Throws CorruptImage
  // and IoError, and Unsupported for a snapshot whose LUKS volume has another
  // key or cipher than that of the active state.
  std::unique_ptr<BlockDevice> Open(size_t index);

 private:
  std::unique_ptr<BlockDevice> OpenLuks(std::unique_ptr<BlockDevice> payload,
                                        const SnapshotInfo& snapshot);

  qcow2::Qcow2Image& image_;
  const std::string file_name_;
  const std::vector<qcow2::Snapshot> snapshots_;
  const std::optional<LuksLayer> luks_;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_SNAPSHOT_DISKS_H_
