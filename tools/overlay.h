#ifndef PELLUCID_TOOLS_OVERLAY_H_
#define PELLUCID_TOOLS_OVERLAY_H_

#include <filesystem>

#include "engine/create_image.h"
#include "engine/open_image.h"
#include "engine/passphrase_source.h"

namespace pellucid::cli {

// Refuses options that do not go with an overlay. Throws UsageError.
void CheckOverlayOptions(const OpenOptions& options,
                         const std::filesystem::path& overlay);

// The overlay that OpenOptionsOfOverlay() makes for `options`. Throws as
// DescribeImage() does.
NewImage OverlayOver(const OpenOptions& options,
                     const std::filesystem::path& overlay);

// What to open instead of options.image so that all that is written lands in
// `overlay`, a qcow2 image whose backing file is options.image. Makes it unless
// it is there. It holds no plaintext: either it stands below the LUKS volume
// and holds ciphertext of the same volume key, or it has a LUKS header and a
// key of its own that the same passphrase opens; this is asked for then, and
// tried on the image. Throws UsageError if the overlay belongs to another
// image, CorruptImage if its making was cut off, and as OpenImage() and
// ImageCreation do.
OpenOptions OpenOptionsOfOverlay(const OpenOptions& options,
                                 const std::filesystem::path& overlay,
                                 PassphraseSource& passphrases);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_OVERLAY_H_
