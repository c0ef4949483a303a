#ifndef PELLUCID_ENGINE_PASSPHRASE_SOURCE_H_
#define PELLUCID_ENGINE_PASSPHRASE_SOURCE_H_

#include <optional>
#include <string_view>

#include "crypto/secret_bytes.h"

namespace pellucid {

// Where the passphrases of a stack come from. The engine asks for one layer at
// a time, from the image that the user named downwards. Not synchronised.
class PassphraseSource {
 public:
  virtual ~PassphraseSource() = default;

  // The next passphrase to try on `layer` (a text for people, such as
  // "disk.qcow2"), or nothing if there is none left. `attempt` counts from 0
  // for each layer. Throws IoError if the terminal or a key file fails.
  virtual std::optional<crypto::SecretBytes> Get(std::string_view layer,
                                                 unsigned attempt) = 0;

  // The volume key itself, if the user has it; asked for first, in place of
  // passphrases. Throws IoError.
  virtual std::optional<crypto::SecretBytes> GetVolumeKey(
      std::string_view /*layer*/) {
    return std::nullopt;
  }

  // The passphrase that Get() returned last has opened its layer. Legacy AES
  // cannot tell right from wrong and takes the first it gets.
  virtual void Accepted() = 0;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_PASSPHRASE_SOURCE_H_
