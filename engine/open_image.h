#ifndef PELLUCID_ENGINE_OPEN_IMAGE_H_
#define PELLUCID_ENGINE_OPEN_IMAGE_H_

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/expected_header.h"
#include "engine/image_info.h"
#include "engine/luks/luks_device.h"
#include "engine/passphrase_source.h"
#include "engine/snapshot_disks.h"
#include "engine/writable_device.h"

namespace pellucid {

// The container of a payload or of a header. LUKS inside it is found by its
// magic.
enum class ContainerFormat { kAuto, kRaw, kQcow2 };

enum class Encryption {
  kAuto,  // Decrypt whatever the metadata says is encrypted.
  kNone,  // Show the ciphertext.
};

// What the user said of an image; the same for every subcommand.
struct OpenOptions {
  std::filesystem::path image;
  std::filesystem::path header;  // Detached LUKS header; empty without one.
  // In place of the external data file that the image names; empty without one.
  std::filesystem::path data_file;
  ContainerFormat format = ContainerFormat::kAuto;
  ContainerFormat header_format = ContainerFormat::kAuto;
  Encryption encryption = Encryption::kAuto;
  std::string snapshot;  // Name or id; empty for the active state.
  // Show this partition of the disk, and what is in it if that is a LUKS
  // volume. Not the whole disk's snapshots, then.
  std::optional<unsigned> partition;
  std::optional<unsigned> keyslot;  // Try only this one.
  // Bytes of memory that deriving a key may take; luks::DefaultMaxKdfMemory()
  // if empty.
  std::optional<uint64_t> max_kdf_memory;
  bool allow_backing = true;  // May files that the image names be opened?
  // Where those may be: in these folders, or these very files; anywhere if
  // empty. A block device is opened only if it is one of these itself.
  std::vector<std::filesystem::path> allowed_paths;
  bool force_share = false;  // Read although another program writes.
  bool writable = false;     // Open the image for writing as well.
  // Sees the ciphertext of the LUKS volume that is on top, as it is read and
  // before it is decrypted: where it stands in the payload, in whole sectors.
  // Called from whichever thread reads.
  luks::LuksDevice::CiphertextWatch ciphertext_watch;
  // Refuse any other LUKS header, before a passphrase is asked for if it can be
  // seen without one. Means the header that the user sees first: the detached
  // one, that inside the image, that at the disk's first byte, or that of the
  // partition.
  ExpectedHeader expected_header;
};

// What messages and PassphraseSource::Get() call the partition that is shown.
// Requires options.partition.
std::string PartitionName(const OpenOptions& options);

// Which file of the host it is, whatever it is called.
struct HostFileId {
  dev_t device = 0;
  ino_t inode = 0;
  dev_t special = 0;  // Of a block device; two nodes may name the same one.

  static HostFileId Of(const struct stat& stat) {
    if (S_ISBLK(stat.st_mode)) return {.special = stat.st_rdev};
    return {.device = stat.st_dev, .inode = stat.st_ino};
  }
  bool operator==(const HostFileId&) const = default;
};

struct OpenedImage {
  std::unique_ptr<BlockDevice> device;  // The plaintext.
  // The same device; null unless options.writable.
  WritableDevice* writable = nullptr;
  // The disk in the image's snapshots, which borrows `device` or what is below
  // it; null if there are none, or one of them is what is shown.
  std::unique_ptr<SnapshotDisks> snapshots;
  struct stat image_stat;  // Of options.image, when it was opened.
  // Every file that the stack is made of: image, data and backing files, the
  // header and what its container needs.
  std::vector<HostFileId> files;
  // What is wrong without keeping the image from being read, for people.
  std::vector<std::string> warnings;
};

// Builds the stack of devices that `options` describe and unlocks it. As long
// as nothing is written, no byte and, where the host lets us, no timestamp of
// any file changes. Backing images and header files are opened for reading
// only, always; an external data file that is not beside the image is opened
// for writing only if it is options.data_file, or an image from a stranger
// could name any file of the user's. Throws every kind of Error; with
// options.writable also UsageError for options that contradict writing,
// CorruptImage for what must not be changed, and Unsupported for what we cannot
// write, all of them before a passphrase is asked for and naming --read-only.
OpenedImage OpenImage(const OpenOptions& options,
                      PassphraseSource& passphrases);

// Reads the metadata only: needs no passphrase, and throws UsageError for an
// expected header that cannot be seen without one. Throws every kind of Error
// but WrongPassphrase; trouble with a backing file lands in `backing_error`.
ImageInfo DescribeImage(const OpenOptions& options);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_OPEN_IMAGE_H_
