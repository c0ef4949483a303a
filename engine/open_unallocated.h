#ifndef PELLUCID_ENGINE_OPEN_UNALLOCATED_H_
#define PELLUCID_ENGINE_OPEN_UNALLOCATED_H_

#include "engine/open_image.h"
#include "engine/passphrase_source.h"

namespace pellucid {

// Opens the image as OpenImage() does, but for what its tables do not refer to
// (qcow2::UnallocatedClusters): `device` is as long as the image's own file. Of
// a backing chain this is the top image; no other file is opened.
//
// Reads all tables. Throws every kind of Error: UsageError for what is no qcow2
// image and for a snapshot; Unsupported where the place in the file is not what
// decrypts a cluster (legacy AES, a detached LUKS header) or where no clusters
// are (an external data file).
OpenedImage OpenUnallocated(const OpenOptions& options,
                            PassphraseSource& passphrases);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_OPEN_UNALLOCATED_H_
