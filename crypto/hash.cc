#include "crypto/hash.h"

#include <stdexcept>

#include "crypto/hash_list.h"

namespace pellucid::crypto {
namespace {

const CryptoPP::byte* AsCryptoPp(std::span<const std::byte> bytes) {
  return reinterpret_cast<const CryptoPP::byte*>(bytes.data());
}

template <class Entry>
class CryptoPpHasher : public Hasher {
 public:
  size_t digest_size() const override { return Entry::kDigestSize; }

  void Update(std::span<const std::byte> data) override {
    hash_.Update(AsCryptoPp(data), data.size());
  }

  void Final(std::span<std::byte> digest) override {
    if (digest.size() != Entry::kDigestSize) {
      throw std::invalid_argument("digest buffer of the wrong size");
    }
    hash_.TruncatedFinal(reinterpret_cast<CryptoPP::byte*>(digest.data()),
                         digest.size());
  }

 private:
  typename Entry::Hash hash_;
};

}  // namespace

std::unique_ptr<Hasher> MakeHasher(std::string_view name) {
  std::unique_ptr<Hasher> hasher;
  WithHash(name, [&]<class Entry>(const Entry&) {
    hasher = std::make_unique<CryptoPpHasher<Entry>>();
  });
  return hasher;
}

size_t DigestSize(std::string_view name) {
  size_t digest_size = 0;
  WithHash(name, [&]<class Entry>(const Entry&) {
    digest_size = Entry::kDigestSize;
  });
  return digest_size;
}

}  // namespace pellucid::crypto
