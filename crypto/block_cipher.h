#ifndef PELLUCID_CRYPTO_BLOCK_CIPHER_H_
#define PELLUCID_CRYPTO_BLOCK_CIPHER_H_

#include <cryptopp/cryptlib.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace pellucid::crypto {

// One direction of a keyed block cipher, in the use of one thread.
class BlockTransform {
 public:
  explicit BlockTransform(const CryptoPP::BlockCipher& keyed);

  // Transforms whole blocks, independently of each other. Here and below the
  // spans are of one size, and each input is the same bytes as `out` or does
  // not overlap it.
  void Process(std::span<const std::byte> in, std::span<std::byte> out) const;

  // The same, and XORs the result with `mask`.
  void ProcessAndXor(std::span<const std::byte> in,
                     std::span<const std::byte> mask,
                     std::span<std::byte> out) const;

  // Cipher block chaining (NIST SP 800-38A, section 6.2): each block is XORed
  // with the output before it, the first with `iv`, and transformed.
  void ChainForward(std::span<const std::byte> iv,
                    std::span<const std::byte> in,
                    std::span<std::byte> out) const;

  // The inverse: each block is transformed and XORed with the input before it.
  void ChainBackward(std::span<const std::byte> iv,
                     std::span<const std::byte> in,
                     std::span<std::byte> out) const;

 private:
  std::unique_ptr<CryptoPP::BlockCipher> cipher_;
};

// A block cipher with its key expanded for both directions; the expanded keys
// are wiped when it goes. Safe to call from many threads.
//
// Crypto++ keeps scratch values inside some cipher objects even while it only
// uses them (CAST-128, SM4, ARIA, AES without AES-NI), so that one object must
// not serve two threads: every piece of work takes a copy.
class BlockCipher {
 public:
  // `name` as in CipherSpec::cipher. Throws UnsupportedAlgorithm for an unknown
  // cipher and for a key length that it does not take.
  BlockCipher(std::string_view name, std::span<const std::byte> key);

  size_t block_size() const { return encryption_->BlockSize(); }

  BlockTransform Encryption() const { return BlockTransform(*encryption_); }
  BlockTransform Decryption() const { return BlockTransform(*decryption_); }

 private:
  std::unique_ptr<CryptoPP::BlockCipher> encryption_;
  std::unique_ptr<CryptoPP::BlockCipher> decryption_;
};

// Throws UnsupportedAlgorithm, naming the ciphers there are.
void RequireBlockCipher(std::string_view name);

// All throw UnsupportedAlgorithm for an unknown cipher.
bool TakesKeySize(std::string_view name, size_t key_size);
std::span<const size_t> KeySizes(std::string_view name);
size_t BlockSize(std::string_view name);

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_BLOCK_CIPHER_H_
