#ifndef PELLUCID_ENGINE_LUKS_UNLOCK_H_
#define PELLUCID_ENGINE_LUKS_UNLOCK_H_

#include <cstdint>
#include <optional>
#include <string>

#include "crypto/secret_bytes.h"
#include "engine/luks/located_header.h"
#include "engine/passphrase_source.h"

namespace pellucid::luks {

struct UnlockedVolume {
  crypto::SecretBytes key;
  std::optional<unsigned> keyslot;  // Empty if the user had the volume key.
};

// The memory, in bytes, that key derivations may take unless the user says
// something else: what this machine has, with its swap, but at most 4 GiB, the
// most that a LUKS2 header is believed to ask for.
uint64_t DefaultMaxKdfMemory();

// Asks `passphrases` for the volume key of `layer` or, if it has none, for
// passphrases until one opens a keyslot: those in use with their priorities, or
// `keyslot` alone if it is given. Several slots are tried at once where there
// are cores and memory. Returns the volume key, which the digest has confirmed.
//
// Who made the header chose what it costs: a keyslot whose derivation takes
// more than `max_kdf_memory` bytes (DefaultMaxKdfMemory() if empty) is not
// tried, and those that are tried at once take no more together. Throws
// WrongPassphrase, CorruptImage and IoError, the latter with ENOMEM if nothing
// but a keyslot that was not tried could open the volume, and before anything
// is asked for if that is true of all.
UnlockedVolume UnlockVolume(const LocatedHeader& located,
                            const std::string& layer,
                            std::optional<unsigned> keyslot,
                            PassphraseSource& passphrases,
                            std::optional<uint64_t> max_kdf_memory = {});

// The same for those who need nothing but the volume key.
crypto::SecretBytes Unlock(const LocatedHeader& located,
                           const std::string& layer,
                           std::optional<unsigned> keyslot,
                           PassphraseSource& passphrases,
                           std::optional<uint64_t> max_kdf_memory = {});

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_UNLOCK_H_
