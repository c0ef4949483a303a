#ifndef PELLUCID_TOOLS_PREALLOCATION_H_
#define PELLUCID_TOOLS_PREALLOCATION_H_

#include "crypto/secret_bytes.h"
#include "engine/create_image.h"

namespace pellucid::cli {

// Stores zeros in every byte of the disk that `wanted` has become, encrypted
// where it is, and makes them durable: the image takes all of its space and
// reads as zeros. `passphrase` opens it. Shows a progress bar unless `quiet`.
// If anything throws, the files that were made are removed. Throws
// InterruptWatch::Check()'s Interrupted, and every kind of Error.
void Preallocate(const NewImage& wanted, const crypto::SecretBytes& passphrase,
                 bool quiet);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_PREALLOCATION_H_
