#ifndef PELLUCID_ENGINE_IMAGE_LAYERS_H_
#define PELLUCID_ENGINE_IMAGE_LAYERS_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "crypto/secret_bytes.h"
#include "crypto/sector_cipher.h"
#include "engine/layer_file.h"
#include "engine/luks/located_header.h"
#include "engine/open_image.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/refcount_repair.h"
#include "engine/qcow2/snapshots.h"

namespace pellucid {

namespace qcow2 {
class Qcow2Image;
}

// One file of a backing chain, opened and checked but not yet unlocked.
// Everything that can be refused without a passphrase has been.
struct ImageLayer {
  std::filesystem::path path;
  LayerFile file;
  std::optional<qcow2::Header> qcow2;  // Empty if raw.
  std::optional<luks::LocatedHeader> embedded_luks;
  std::vector<qcow2::Snapshot> snapshots;
  std::optional<qcow2::Snapshot> shown_snapshot;
  std::unique_ptr<qcow2::RefcountRepair> repair;   // If dirty and writable.
  LayerFile data_file;                             // Empty unless external.
  std::filesystem::path data_file_path;            // Likewise.
  std::optional<luks::LocatedHeader> luks_volume;  // Of a raw layer that the
                                                   // image above calls "luks".
  std::unique_ptr<ImageLayer> backing;
  std::string backing_error;  // Why `backing` is null although it is named.
  std::vector<std::string> warnings;  // Of this layer, for people.
  crypto::SecretBytes key;            // Empty until unlocked.
  bool wipes_freed = false;  // Overwrite clusters before they are free.
};

// Is `file` a qcow2 image, if `format` leaves that open? Throws CorruptImage
// for what is said to be one and is not, Unsupported for a container of another
// kind, and IoError; `path` and what it is to `options` are for messages.
bool IsQcow2(BlockDevice& file, const std::filesystem::path& path,
             ContainerFormat format, const OpenOptions& options);

// Refuses options that contradict each other. Throws UsageError.
void CheckOptions(const OpenOptions& options);

// What OpenLayers() does about a backing or data file that cannot be opened.
enum class IfNamedFileFails { kThrow, kNote };

// Opens `path` and all that it names, with the general options (allow_backing,
// allowed_paths, force_share, writable) of `options`. What can be written is
// the image and its data file, never a backing image. Throws every kind of
// Error but WrongPassphrase.
std::unique_ptr<ImageLayer> OpenLayers(const std::filesystem::path& path,
                                       ContainerFormat format,
                                       const std::string& snapshot,
                                       const OpenOptions& options,
                                       IfNamedFileFails if_named_file_fails);

// Asks for the passphrase of each layer that encrypts by itself, from the top.
// `keyslot` concerns the top layer only, `max_kdf_memory` all. Throws as
// luks::Unlock() does.
void UnlockLayers(ImageLayer& top, std::optional<unsigned> keyslot,
                  PassphraseSource& passphrases,
                  std::optional<uint64_t> max_kdf_memory);

// The cipher of the clusters of a qcow2 layer, null if they are not encrypted
// or the layer has not been unlocked.
std::unique_ptr<crypto::SectorCipher> ClusterCipher(const ImageLayer& layer);

// A stack of devices, and its top once more if that was opened for writing.
struct AssembledLayers {
  std::unique_ptr<BlockDevice> device;
  WritableDevice* writable = nullptr;  // Owned by `device`.
  // What it is if it is a qcow2 image.
  qcow2::Qcow2Image* qcow2 = nullptr;

  static AssembledLayers ReadOnly(std::unique_ptr<BlockDevice> device) {
    return {.device = std::move(device)};
  }
  static AssembledLayers Writable(std::unique_ptr<WritableDevice> device) {
    WritableDevice* const writable = device.get();
    return {.device = std::move(device), .writable = writable};
  }
  // The device alone, for a layer above it. Requires `writable`.
  std::unique_ptr<WritableDevice> TakeWritable() {
    static_cast<void>(device.release());  // `writable` is the same.
    return std::unique_ptr<WritableDevice>(std::exchange(writable, nullptr));
  }
};

// Puts the devices on top of each other; a layer without a key shows its
// clusters as they are stored. Throws CorruptImage and IoError.
AssembledLayers AssembleLayers(std::unique_ptr<ImageLayer> top);

// Leaves only the partition of the disk with this number. Throws as
// FindPartition() does.
void CutToPartition(AssembledLayers& disk, unsigned number,
                    const std::string& disk_name);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_IMAGE_LAYERS_H_
