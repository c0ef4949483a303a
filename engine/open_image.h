#ifndef PELLUCID_ENGINE_OPEN_IMAGE_H_
#define PELLUCID_ENGINE_OPEN_IMAGE_H_

#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/image_info.h"
#include "engine/passphrase_source.h"

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
  ContainerFormat format = ContainerFormat::kAuto;
  ContainerFormat header_format = ContainerFormat::kAuto;
  Encryption encryption = Encryption::kAuto;
  std::string snapshot;             // Name or id; empty for the active state.
  std::optional<unsigned> keyslot;  // Try only this one.
  bool allow_backing = true;        // May files that the image names be opened?
  bool force_share = false;         // Read although another program writes.
};

struct OpenedImage {
  std::unique_ptr<BlockDevice> device;  // The plaintext.
  struct stat image_stat;               // Of options.image, when it was opened.
  // What is wrong without keeping the image from being read, for people.
  std::vector<std::string> warnings;
};

// Builds the stack of devices that `options` describe and unlocks it.
// Read-only: no byte and, where the host lets us, no timestamp of any file
// changes. Throws every kind of Error.
OpenedImage OpenImage(const OpenOptions& options,
                      PassphraseSource& passphrases);

// Reads the metadata only: needs no passphrase. Throws every kind of Error but
// WrongPassphrase; trouble with a backing file lands in `backing_error`.
ImageInfo DescribeImage(const OpenOptions& options);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_OPEN_IMAGE_H_
