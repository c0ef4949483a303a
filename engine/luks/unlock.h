#ifndef PELLUCID_ENGINE_LUKS_UNLOCK_H_
#define PELLUCID_ENGINE_LUKS_UNLOCK_H_

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

// Asks `passphrases` for the volume key of `layer` or, if it has none, for
// passphrases until one opens a keyslot: those in use with their priorities, or
// `keyslot` alone if it is given. Several slots are tried at once where there
// are cores and memory. Returns the volume key, which the digest has confirmed.
// Throws WrongPassphrase, CorruptImage and IoError.
UnlockedVolume UnlockVolume(const LocatedHeader& located,
                            const std::string& layer,
                            std::optional<unsigned> keyslot,
                            PassphraseSource& passphrases);

// The same for those who need nothing but the volume key.
crypto::SecretBytes Unlock(const LocatedHeader& located,
                           const std::string& layer,
                           std::optional<unsigned> keyslot,
                           PassphraseSource& passphrases);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_UNLOCK_H_
