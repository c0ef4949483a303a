#include "crypto/secret_bytes.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <utility>

namespace pellucid::crypto {
namespace {

std::byte* MapLockedPages(size_t size) {
  void* pages = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  // Both are best effort: RLIMIT_MEMLOCK may be small, and a secret in
  // swappable memory is better than an image that cannot be opened.
  (void)mlock(pages, size);
  (void)madvise(pages, size, MADV_DONTDUMP);
  return static_cast<std::byte*>(pages);
}

}  // namespace

void SecureWipe(std::span<std::byte> bytes) {
  if (!bytes.empty()) explicit_bzero(bytes.data(), bytes.size());
}

bool ConstantTimeEquals(std::span<const std::byte> a,
                        std::span<const std::byte> b) {
  if (a.size() != b.size()) return false;
  // Volatile, so that the compiler cannot stop at the first difference.
  volatile unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<unsigned char>(
        difference | std::to_integer<unsigned char>(a[i] ^ b[i]));
  }
  return difference == 0;
}

SecretBytes::SecretBytes(size_t size)
    : data_(size == 0 ? nullptr : MapLockedPages(size)), size_(size) {}

SecretBytes::SecretBytes(std::span<const std::byte> copy_of)
    : SecretBytes(copy_of.size()) {
  if (size_ != 0) std::memcpy(data_, copy_of.data(), size_);
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

SecretBytes::~SecretBytes() {
  if (size_ == 0) return;
  SecureWipe(bytes());
  munmap(data_, size_);
}

}  // namespace pellucid::crypto
