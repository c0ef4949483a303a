#include "crypto/anti_forensic.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "crypto/byte_order.h"
#include "crypto/hash.h"
#include "crypto/random_bytes.h"
#include "crypto/stack_wipe.h"

namespace pellucid::crypto {
namespace {

void Xor(std::span<std::byte> target, std::span<const std::byte> source) {
  for (size_t i = 0; i < target.size(); ++i) target[i] ^= source[i];
}

// Replaces each piece of a digest's length (the last may be shorter) by
// hash(its index || the piece). `digest` is room for one, the caller's since
// locked memory is dear to make for each of thousands of stripes.
void Diffuse(Hasher& hasher, std::span<std::byte> block, SecretBytes& digest) {
  uint32_t index = 0;
  for (size_t offset = 0; offset < block.size();
       offset += digest.size(), ++index) {
    const std::span<std::byte> piece =
        block.subspan(offset, std::min(digest.size(), block.size() - offset));
    hasher.Update(BigEndian(index));
    hasher.Update(piece);
    hasher.Final(digest.bytes());
    std::memcpy(piece.data(), digest.bytes().data(), piece.size());
  }
}

// The running value that is XORed with the last stripe: all other stripes
// chained through the hash.
SecretBytes ChainAllButLast(Hasher& hasher, std::span<const std::byte> split,
                            size_t key_size) {
  SecretBytes chain(key_size);
  SecretBytes digest(hasher.digest_size());
  for (size_t offset = 0; offset + key_size < split.size();
       offset += key_size) {
    Xor(chain.bytes(), split.subspan(offset, key_size));
    Diffuse(hasher, chain.bytes(), digest);
  }
  return chain;
}

}  // namespace

SecretBytes AntiForensicMerge(std::string_view hash,
                              std::span<const std::byte> split,
                              uint32_t stripes) {
  if (stripes == 0 || split.empty() || split.size() % stripes != 0) {
    throw std::invalid_argument(
        "anti-forensic merge: the size is not a multiple of the stripes");
  }
  const StackWipe hashing;
  const std::unique_ptr<Hasher> hasher = MakeHasher(hash);
  const size_t key_size = split.size() / stripes;
  SecretBytes key = ChainAllButLast(*hasher, split, key_size);
  Xor(key.bytes(), split.last(key_size));
  return key;
}

SecretBytes AntiForensicSplit(std::string_view hash,
                              std::span<const std::byte> key,
                              uint32_t stripes) {
  if (stripes == 0 || key.empty()) {
    throw std::invalid_argument("anti-forensic split: nothing to split");
  }
  const StackWipe hashing;
  const std::unique_ptr<Hasher> hasher = MakeHasher(hash);
  SecretBytes split(key.size() * stripes);
  FillRandom(split.bytes().first(split.size() - key.size()));
  const SecretBytes chain = ChainAllButLast(*hasher, split.bytes(), key.size());
  const std::span<std::byte> last_stripe = split.bytes().last(key.size());
  std::memcpy(last_stripe.data(), key.data(), key.size());
  Xor(last_stripe, chain.bytes());
  return split;
}

}  // namespace pellucid::crypto
