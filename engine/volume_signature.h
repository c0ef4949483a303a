#ifndef PELLUCID_ENGINE_VOLUME_SIGNATURE_H_
#define PELLUCID_ENGINE_VOLUME_SIGNATURE_H_

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "engine/block_device.h"

namespace pellucid {

// What a disk or a partition says that it holds.
struct VolumeSignature {
  std::string type;   // As blkid calls it: "ext4", "vfat", "LVM2_member", ...
  std::string label;  // Empty without one. UTF-8 where the volume keeps to it.
  std::string uuid;   // As blkid writes it; empty without one.
};

// The signatures of ext2 to ext4, xfs, btrfs, NTFS, FAT, exFAT, swap space,
// LVM's physical volumes, LUKS and ISO 9660 that `volume` has, those first that
// stand nearer to its beginning: usually one, several if a volume was formatted
// again and the old signature not wiped, and none for what is not known here.
//
// Nothing that is found is believed: a signature costs two reads of at most 64
// KiB beyond the first 68 KiB of the volume. Throws what volume.Read() does.
// Safe to call from many threads.
std::vector<VolumeSignature> FindVolumeSignatures(BlockDevice& volume);

inline constexpr size_t kSignatureBlock = 4096;

// The same of a block in the middle of a disk, where something else has
// overwritten the rest: signatures of volumes that begin with the block, and
// those that volumes repeat elsewhere (superblocks of ext2 to ext4, xfs and
// btrfs, boot sectors). Labels that stand elsewhere in a volume are left empty.
// Throws nothing. Safe to call from many threads.
std::vector<VolumeSignature> FindSignaturesInBlock(
    std::span<const std::byte, kSignatureBlock> block);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_VOLUME_SIGNATURE_H_
