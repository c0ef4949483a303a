#ifndef PELLUCID_ENGINE_RESIZE_IMAGE_H_
#define PELLUCID_ENGINE_RESIZE_IMAGE_H_

#include <cstdint>

#include "engine/open_image.h"
#include "engine/passphrase_source.h"

namespace pellucid {

// The size that an image is to have, of its plaintext, in bytes.
struct NewSize {
  enum class Kind {
    kExactly,
    kMore,  // That many more than now.
    kLess,
  };
  Kind kind = Kind::kExactly;
  uint64_t bytes = 0;
  bool may_shrink = false;
};

struct SizeChange {
  uint64_t before = 0;  // Of the plaintext, as ImageInfo::virtual_size.
  uint64_t after = 0;
};

// Changes the size of an image that nobody else uses: the disk of a qcow2
// image, or the host file of a raw one, by as much as its plaintext is to
// change. A LUKS volume in it keeps its header as it is. New bytes read as
// zeros, but those of a LUKS layer as noise, since what is stored is zeros of
// ciphertext. Durable when it returns; a power cut leaves the one size or the
// other. What is behind the new end is gone.
//
// Asks for a passphrase only if the rest of a last cluster has to be
// overwritten. Throws every kind of Error: UsageError for a smaller size
// without may_shrink and one that the format cannot have, Unsupported for a
// host block device and LUKS segments of a fixed size, and what
// qcow2::GrowDisk() throws.
SizeChange ResizeImage(const OpenOptions& options, const NewSize& size,
                       PassphraseSource& passphrases);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_RESIZE_IMAGE_H_
