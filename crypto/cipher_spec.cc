#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "crypto/block_cipher.h"
#include "crypto/cipher_mode.h"
#include "crypto/hash.h"
#include "crypto/iv_generator.h"
#include "crypto/sector_cipher.h"
#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {
namespace {

// The text before the first `separator`, and the text behind it (empty if
// there is none).
std::pair<std::string, std::string> SplitAt(std::string_view text,
                                            char separator) {
  const size_t position = text.find(separator);
  if (position == std::string_view::npos) return {std::string(text), ""};
  return {std::string(text.substr(0, position)),
          std::string(text.substr(position + 1))};
}

}  // namespace

std::string CipherSpec::ToString() const {
  std::string text = cipher + "-" + mode;
  if (!iv.empty()) text += "-" + iv;
  if (!iv_hash.empty()) text += ":" + iv_hash;
  return text;
}

CipherSpec ParseCipherSpec(std::string_view cipher_name,
                           std::string_view cipher_mode) {
  CipherSpec spec;
  spec.cipher = cipher_name;
  std::string generator;
  std::tie(spec.mode, generator) = SplitAt(cipher_mode, '-');
  std::tie(spec.iv, spec.iv_hash) = SplitAt(generator, ':');

  if (spec.cipher == "cipher_null") {
    throw UnsupportedAlgorithm(
        "the null cipher, \"cipher_null\", is refused: it encrypts nothing");
  }
  RequireBlockCipher(spec.cipher);
  RequireCipherMode(spec.mode);
  // ECB has no use for an IV, but QEMU writes one: "ecb-plain64".
  if (!(spec.mode == "ecb" && generator.empty())) RequireIvGenerator(spec.iv);
  if (spec.mode == "ecb") spec.iv.clear();
  if (spec.iv == "essiv") {
    DigestSize(spec.iv_hash);
  } else {
    spec.iv_hash.clear();
  }
  return spec;
}

}  // namespace pellucid::crypto
