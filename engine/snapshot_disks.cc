#include "engine/snapshot_disks.h"

#include <fmt/format.h>

#include <utility>

#include "engine/errors.h"
#include "engine/luks/key_material.h"

namespace pellucid {
namespace {

// Do two headers belong to one volume key? A digest has a random salt, which
// changes of keyslots leave alone.
bool HaveSameKey(const luks::VolumeHeader& a, const luks::VolumeHeader& b) {
  const luks::Digest* const one = luks::VolumeDigest(a);
  const luks::Digest* const other = luks::VolumeDigest(b);
  return one != nullptr && other != nullptr && one->value == other->value &&
         one->kdf.salt == other->kdf.salt;
}

}  // namespace

SnapshotDisks::SnapshotDisks(qcow2::Qcow2Image& image, std::string file_name,
                             std::vector<qcow2::Snapshot> snapshots,
                             std::optional<LuksLayer> luks)
    : image_(image),
      file_name_(std::move(file_name)),
      snapshots_(std::move(snapshots)),
      luks_(std::move(luks)) {}

std::unique_ptr<BlockDevice> SnapshotDisks::Open(size_t index) {
  const qcow2::Snapshot& snapshot = snapshots_.at(index);
  std::unique_ptr<BlockDevice> disk = image_.OpenSnapshot(snapshot);
  return luks_ ? OpenLuks(std::move(disk), snapshot.info) : std::move(disk);
}

std::unique_ptr<BlockDevice> SnapshotDisks::OpenLuks(
    std::unique_ptr<BlockDevice> payload, const SnapshotInfo& snapshot) {
  const std::string name =
      fmt::format("{}: snapshot {}", file_name_, snapshot.id);
  luks::LocatedHeader located = {.device = payload.get(),
                                 .offset = 0,
                                 .file_name = name,
                                 .header = luks_->header};
  if (luks_->in_place) {
    // It may be older than the volume.
    if (!luks::IsLuksVolume(*payload)) return payload;
    located = luks::ReadLuksHeader(*payload, 0, payload->size(), name,
                                   luks::Place::kInPlace);
  }
  std::unique_ptr<luks::LuksDevice> device;
  luks::CheckPayload(located, payload->size(), name);
  if (HaveSameKey(located.header, luks_->header)) {
    device =
        luks_->device->WithOtherPayload(std::move(payload), located.header);
  }
  if (!device) {
    throw Unsupported(fmt::format(
        "{}: its LUKS volume has another key or cipher than that of the active "
        "state; open it by itself, with --snapshot",
        name));
  }
  return device;
}

}  // namespace pellucid
