#include "crypto/block_cipher.h"

#include <cryptopp/aes.h>
#include <cryptopp/aria.h>
#include <cryptopp/camellia.h>
#include <cryptopp/cast.h>
#include <cryptopp/serpent.h>
#include <cryptopp/sm4.h>
#include <cryptopp/twofish.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "crypto/named_table.h"
#include "crypto/stack_wipe.h"
#include "crypto/unsupported_algorithm.h"

namespace pellucid::crypto {
namespace {

using CryptoPpCipher = std::unique_ptr<CryptoPP::BlockCipher>;

template <class Cipher>
CryptoPpCipher NewCipher() {
  return std::make_unique<Cipher>();
}

constexpr size_t kAesKeySizes[] = {16, 24, 32};
constexpr size_t kCast5KeySizes[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
constexpr size_t kSm4KeySizes[] = {16};

struct CipherEntry {
  std::string_view name;
  std::span<const size_t> key_sizes;
  size_t block_size;
  CryptoPpCipher (*new_encryption)();
  CryptoPpCipher (*new_decryption)();
};

template <class Cipher>
constexpr CipherEntry Entry(std::string_view name,
                            std::span<const size_t> key_sizes) {
  return {name, key_sizes, Cipher::BLOCKSIZE,
          NewCipher<typename Cipher::Encryption>,
          NewCipher<typename Cipher::Decryption>};
}

constexpr CipherEntry kCiphers[] = {
    Entry<CryptoPP::AES>("aes", kAesKeySizes),
    Entry<CryptoPP::Serpent>("serpent", kAesKeySizes),
    Entry<CryptoPP::Twofish>("twofish", kAesKeySizes),
    Entry<CryptoPP::CAST128>("cast5", kCast5KeySizes),
    Entry<CryptoPP::Camellia>("camellia", kAesKeySizes),
    Entry<CryptoPP::SM4>("sm4", kSm4KeySizes),
    Entry<CryptoPP::ARIA>("aria", kAesKeySizes),
};

const CipherEntry& FindCipher(std::string_view name) {
  return FindByName(kCiphers, "cipher", name);
}

const CryptoPP::byte* AsCryptoPp(std::span<const std::byte> bytes) {
  return reinterpret_cast<const CryptoPP::byte*>(bytes.data());
}

CryptoPP::byte* AsCryptoPp(std::span<std::byte> bytes) {
  return reinterpret_cast<CryptoPP::byte*>(bytes.data());
}

using Flags = CryptoPP::BlockTransformation;

void Advance(const CryptoPP::BlockCipher& cipher, std::span<const std::byte> in,
             const std::byte* mask, std::span<std::byte> out,
             CryptoPP::word32 flags) {
  if (in.empty()) return;
  cipher.AdvancedProcessBlocks(AsCryptoPp(in),
                               reinterpret_cast<const CryptoPP::byte*>(mask),
                               AsCryptoPp(out), in.size(), flags);
}

}  // namespace

BlockTransform::BlockTransform(const CryptoPP::BlockCipher& keyed)
    : cipher_(static_cast<CryptoPP::BlockCipher*>(keyed.Clone())) {}

void BlockTransform::Process(std::span<const std::byte> in,
                             std::span<std::byte> out) const {
  Advance(*cipher_, in, nullptr, out, Flags::BT_AllowParallel);
}

void BlockTransform::ProcessAndXor(std::span<const std::byte> in,
                                   std::span<const std::byte> mask,
                                   std::span<std::byte> out) const {
  Advance(*cipher_, in, mask.data(), out, Flags::BT_AllowParallel);
}

void BlockTransform::ChainForward(std::span<const std::byte> iv,
                                  std::span<const std::byte> in,
                                  std::span<std::byte> out) const {
  const size_t block = iv.size();
  Advance(*cipher_, in.first(block), iv.data(), out.first(block),
          Flags::BT_XorInput);
  // Without BT_AllowParallel a block is read only after the one before it has
  // been written.
  Advance(*cipher_, in.subspan(block), out.data(), out.subspan(block),
          Flags::BT_XorInput);
}

void BlockTransform::ChainBackward(std::span<const std::byte> iv,
                                   std::span<const std::byte> in,
                                   std::span<std::byte> out) const {
  const size_t block = iv.size();
  // From the end, so that in place no ciphertext is lost that is still needed.
  Advance(*cipher_, in.subspan(block), in.data(), out.subspan(block),
          Flags::BT_ReverseDirection | Flags::BT_AllowParallel);
  Advance(*cipher_, in.first(block), iv.data(), out.first(block), 0);
}

BlockCipher::BlockCipher(std::string_view name,
                         std::span<const std::byte> key) {
  const CipherEntry& entry = FindCipher(name);
  if (!TakesKeySize(name, key.size())) {
    throw UnsupportedAlgorithm(
        fmt::format("cipher {} takes no key of {} bytes (supported: {})", name,
                    key.size(), fmt::join(entry.key_sizes, ", ")));
  }
  const StackWipe key_schedules;
  encryption_ = entry.new_encryption();
  encryption_->SetKey(AsCryptoPp(key), key.size());
  decryption_ = entry.new_decryption();
  decryption_->SetKey(AsCryptoPp(key), key.size());
}

void RequireBlockCipher(std::string_view name) { FindCipher(name); }

bool TakesKeySize(std::string_view name, size_t key_size) {
  const std::span<const size_t> sizes = KeySizes(name);
  return std::ranges::find(sizes, key_size) != sizes.end();
}

std::span<const size_t> KeySizes(std::string_view name) {
  return FindCipher(name).key_sizes;
}

size_t BlockSize(std::string_view name) { return FindCipher(name).block_size; }

}  // namespace pellucid::crypto
