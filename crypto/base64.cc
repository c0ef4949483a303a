#include "crypto/base64.h"

#include <cryptopp/base64.h>
#include <cryptopp/filters.h>

namespace pellucid::crypto {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::optional<std::vector<std::byte>> DecodeBase64(std::string_view text) {
  // The library's decoder skips what it does not know; we do not.
  if (text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  if (text.substr(0, text.size() - padding).find_first_not_of(kAlphabet) !=
      std::string_view::npos) {
    return std::nullopt;
  }
  CryptoPP::Base64Decoder decoder;
  decoder.Put(reinterpret_cast<const CryptoPP::byte*>(text.data()),
              text.size());
  decoder.MessageEnd();
  std::vector<std::byte> bytes(decoder.MaxRetrievable());
  decoder.Get(reinterpret_cast<CryptoPP::byte*>(bytes.data()), bytes.size());
  return bytes;
}

std::string EncodeBase64(std::span<const std::byte> bytes) {
  CryptoPP::Base64Encoder encoder(nullptr, /*insertLineBreaks=*/false);
  encoder.Put(reinterpret_cast<const CryptoPP::byte*>(bytes.data()),
              bytes.size());
  encoder.MessageEnd();
  std::string text(encoder.MaxRetrievable(), '\0');
  encoder.Get(reinterpret_cast<CryptoPP::byte*>(text.data()), text.size());
  return text;
}

}  // namespace pellucid::crypto
