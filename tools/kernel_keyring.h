#ifndef PELLUCID_TOOLS_KERNEL_KEYRING_H_
#define PELLUCID_TOOLS_KERNEL_KEYRING_H_

#include <string>

#include "crypto/secret_bytes.h"

namespace pellucid::cli {

// The payload of the key of type "user" with that description, looked for in
// the keyrings of the thread, the process and the session, as keyctl(1) does.
// Throws UsageError if there is none, and IoError.
crypto::SecretBytes ReadKeyringKey(const std::string& description);

}  // namespace pellucid::cli

#endif  // PELLUCID_TOOLS_KERNEL_KEYRING_H_
