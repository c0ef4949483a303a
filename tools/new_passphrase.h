#ifndef PELLUCID_TOOLS_NEW_PASSPHRASE_H_
#define PELLUCID_TOOLS_NEW_PASSPHRASE_H_

#include <string>
#include <string_view>

#include "crypto/secret_bytes.h"

namespace pellucid::cli {

// A passphrase that is to open `volume` (a text for people) from now on: the
// content of `key_file`, or, if that is empty, typed on the terminal twice,
// three tries. Throws UsageError for an empty passphrase, for two that differ
// and without a terminal; and IoError.
crypto::SecretBytes GetNewPassphrase(std::string_view volume,
                                     const std::string& key_file);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_NEW_PASSPHRASE_H_
