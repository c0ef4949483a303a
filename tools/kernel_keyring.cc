#include "tools/kernel_keyring.h"

#include <fmt/core.h>
#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "engine/errors.h"

namespace pellucid::cli {
namespace {

[[noreturn]] void Throw(const std::string& description, int error) {
  const std::string why = std::generic_category().message(error);
  if (error == ENOKEY || error == EKEYEXPIRED || error == EKEYREVOKED) {
    throw UsageError(fmt::format(
        "kernel keyring: no key \"{}\" of type user ({}); `keyctl padd user "
        "\"{}\" @s` adds one",
        description, why, description));
  }
  throw IoError(error, fmt::format("kernel keyring: cannot read key \"{}\": {}",
                                   description, why));
}

}  // namespace

crypto::SecretBytes ReadKeyringKey(const std::string& description) {
  const long key =
      syscall(SYS_request_key, "user", description.c_str(), nullptr, 0);
  if (key < 0) Throw(description, errno);
  // Read with the length of the read before, until it fits: keys may change.
  crypto::SecretBytes payload;
  for (;;) {
    const long length = syscall(SYS_keyctl, KEYCTL_READ, key,
                                payload.bytes().data(), payload.size());
    if (length < 0) Throw(description, errno);
    const auto size = static_cast<size_t>(length);
    if (size <= payload.size()) {
      return crypto::SecretBytes(
          std::span<const std::byte>(payload.bytes().first(size)));
    }
    payload = crypto::SecretBytes(size);
  }
}

}  // namespace pellucid::cli
