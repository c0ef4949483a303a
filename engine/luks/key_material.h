#ifndef PELLUCID_ENGINE_LUKS_KEY_MATERIAL_H_
#define PELLUCID_ENGINE_LUKS_KEY_MATERIAL_H_

#include <cstddef>
#include <span>
#include <vector>

#include "crypto/secret_bytes.h"
#include "engine/luks/volume_header.h"

namespace pellucid::luks {

// How a passphrase keeps a volume key in a keyslot's area: LUKS1 On-Disk
// Format, section 4; LUKS2 has the same scheme. Safe to call from many threads.

// Fills `out` with what `kdf` makes of `secret`. Throws
// crypto::UnsupportedAlgorithm and std::bad_alloc.
void Derive(const Kdf& kdf, std::span<const std::byte> secret,
            std::span<std::byte> out);

// Is `key` the one that the digest was made of?
bool Confirms(const Digest& digest, const crypto::SecretBytes& key);

// The digest that covers the first encrypted segment: that of the volume key.
// Null if there is none. Borrowed from `header`.
const Digest* VolumeDigest(const VolumeHeader& header);

// The key that `passphrase` takes out of `material`, right or wrong: the first
// slot.split_bytes() bytes of the slot's area.
crypto::SecretBytes OpenKeyMaterial(const Keyslot& slot,
                                    std::span<const std::byte> material,
                                    const crypto::SecretBytes& passphrase);

// The inverse, different each time: the slot.split_bytes() bytes to store.
// Requires key.size() == slot.key_size.
std::vector<std::byte> SealKeyMaterial(const Keyslot& slot,
                                       const crypto::SecretBytes& key,
                                       const crypto::SecretBytes& passphrase);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_KEY_MATERIAL_H_
