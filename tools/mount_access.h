#ifndef PELLUCID_TOOLS_MOUNT_ACCESS_H_
#define PELLUCID_TOOLS_MOUNT_ACCESS_H_

#include <functional>
#include <string>

#include "engine/open_image.h"
#include "engine/passphrase_source.h"
#include "fuse/mount_options.h"

namespace pellucid::cli {

// Whether a mount is to be writable.
enum class WantedAccess {
  kReadOnly,
  kReadWriteIfPossible,  // Read-only with a warning otherwise.
  kReadWrite,
};

// What the user said, and what follows from it: a snapshot, the ciphertext or
// an image that is shared by force are only read. `read_only` is --read-only.
// Throws UsageError if it contradicts -o rw.
WantedAccess DecideAccess(const OpenOptions& options, bool read_only,
                          fuse::MountAccess mount_option);

// Opens the image as `wanted` says; options.writable is of no account. An image
// that the host does not let us write, one that is marked as corrupt and one
// that we cannot write are opened read-only if that may be, and `warn` is told
// why. An image that is locked is not: its user could begin to write a moment
// later. Throws as OpenImage() does.
OpenedImage OpenWithAccess(const OpenOptions& options, WantedAccess wanted,
                           PassphraseSource& passphrases,
                           const std::function<void(const std::string&)>& warn);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_MOUNT_ACCESS_H_
