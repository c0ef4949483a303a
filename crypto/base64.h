#ifndef PELLUCID_CRYPTO_BASE64_H_
#define PELLUCID_CRYPTO_BASE64_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pellucid::crypto {

// Base64 with padding and without line breaks (RFC 4648, section 4). Nothing
// if `text` is anything else.
std::optional<std::vector<std::byte>> DecodeBase64(std::string_view text);

std::string EncodeBase64(std::span<const std::byte> bytes);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_BASE64_H_
