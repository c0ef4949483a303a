#ifndef PELLUCID_CRYPTO_SECRET_BYTES_H_
#define PELLUCID_CRYPTO_SECRET_BYTES_H_

#include <cstddef>
#include <span>

namespace pellucid::crypto {

// Overwrites `bytes` in a way that the optimiser keeps.
void SecureWipe(std::span<std::byte> bytes);

// True if both are of the same length and content; the time taken depends only
// on the lengths.
bool ConstantTimeEquals(std::span<const std::byte> a,
                        std::span<const std::byte> b);

// A fixed number of bytes that nobody else may see: a passphrase, a key, key
// material. Lives in pages of its own that are locked into memory where
// RLIMIT_MEMLOCK allows and left out of core dumps, and is wiped when it goes.
// Movable, never copied by accident. Not synchronised.
class SecretBytes {
 public:
  SecretBytes() = default;
  // `size` zero bytes. Throws std::bad_alloc.
  explicit SecretBytes(size_t size);
  explicit SecretBytes(std::span<const std::byte> copy_of);
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  ~SecretBytes();

  SecretBytes Clone() const { return SecretBytes(bytes()); }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::span<std::byte> bytes() { return {data_, size_}; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_SECRET_BYTES_H_
