#ifndef PELLUCID_CRYPTO_HMAC_CHAIN_H_
#define PELLUCID_CRYPTO_HMAC_CHAIN_H_

#include <cryptopp/config_int.h>
#include <cryptopp/secblock.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "crypto/byte_order.h"
#include "crypto/hash_list.h"

namespace pellucid::crypto {

// The function F of PBKDF2 (RFC 8018, section 5.2): U1 ^ U2 ^ ... ^ Un, where
// each U is the HMAC of the one before. HMAC (RFC 2104) starts two hashes with
// one block each that depends on the key only; the states after these blocks
// are kept, so that an iteration compresses nothing but digests.

// HMAC's key, padded to the hash's block size, combined with one of the two
// constants.
template <class Entry>
class HmacKeyBlock {
 public:
  static constexpr CryptoPP::byte kInner = 0x36;
  static constexpr CryptoPP::byte kOuter = 0x5c;

  HmacKeyBlock(std::span<const std::byte> key, CryptoPP::byte pad) {
    const auto* key_bytes = reinterpret_cast<const CryptoPP::byte*>(key.data());
    std::fill(block_.begin(), block_.end(), CryptoPP::byte{0});
    if (key.size() <= block_.size()) {
      std::copy_n(key_bytes, key.size(), block_.begin());
    } else {
      typename Entry::Hash hash;
      hash.Update(key_bytes, key.size());
      hash.TruncatedFinal(block_.data(), Entry::kDigestSize);
    }
    for (CryptoPP::byte& b : block_) b = static_cast<CryptoPP::byte>(b ^ pad);
  }

  std::span<const CryptoPP::byte> bytes() const {
    return {block_.data(), block_.size()};
  }

 private:
  CryptoPP::FixedSizeSecBlock<CryptoPP::byte, Entry::kBlockSize> block_;
};

// F for any hash that can be copied in the middle. Safe to call from many
// threads.
template <class Entry>
class CopiedHashChain {
 public:
  using Digest =
      CryptoPP::FixedSizeSecBlock<CryptoPP::byte, Entry::kDigestSize>;

  explicit CopiedHashChain(std::span<const std::byte> key)
      : inner_(StartedWith({key, HmacKeyBlock<Entry>::kInner})),
        outer_(StartedWith({key, HmacKeyBlock<Entry>::kOuter})) {}

  // Writes the block of PBKDF2's output with this number, counted from 1.
  void Run(std::span<const std::byte> salt, uint32_t block_number,
           uint32_t iterations, Digest& result) const {
    Digest u;
    First(salt, block_number, u);
    result = u;
    Hash hash;
    for (uint32_t i = 1; i < iterations; ++i) {
      Finish(hash = inner_, u, u);
      Finish(hash = outer_, u, u);
      for (size_t j = 0; j < u.size(); ++j) {
        result[j] = static_cast<CryptoPP::byte>(result[j] ^ u[j]);
      }
    }
  }

  // U1, the HMAC of the salt and the block's number.
  void First(std::span<const std::byte> salt, uint32_t block_number,
             Digest& u) const {
    Hash hash = inner_;
    const auto number = BigEndian(block_number);
    hash.Update(reinterpret_cast<const CryptoPP::byte*>(salt.data()),
                salt.size());
    hash.Update(reinterpret_cast<const CryptoPP::byte*>(number.data()),
                number.size());
    hash.TruncatedFinal(u.data(), u.size());
    Finish(hash = outer_, u, u);
  }

 private:
  using Hash = typename Entry::Hash;

  static Hash StartedWith(const HmacKeyBlock<Entry>& block) {
    Hash hash;
    hash.Update(block.bytes().data(), block.bytes().size());
    return hash;
  }

  static void Finish(Hash& hash, const Digest& message, Digest& digest) {
    hash.Update(message.data(), message.size());
    hash.TruncatedFinal(digest.data(), digest.size());
  }

  Hash inner_;
  Hash outer_;
};

// A hash that offers its compression function on words: then no byte is
// swapped and nothing buffered between two iterations. Crypto++'s function of
// SM3 takes bytes in the guise of words, unlike all others.
template <class Hash>
concept HasCompressionFunction = !std::is_same_v<Hash, CryptoPP::SM3> &&
                                 requires(typename Hash::HashWordType * words) {
  Hash::InitState(words);
  Hash::Transform(words, words);
};

// F by the bare compression function. Safe to call from many threads.
template <class Entry>
class CompressionChain {
 public:
  using Digest = typename CopiedHashChain<Entry>::Digest;

  explicit CompressionChain(std::span<const std::byte> key) : first_(key) {
    Start(inner_, {key, HmacKeyBlock<Entry>::kInner});
    Start(outer_, {key, HmacKeyBlock<Entry>::kOuter});
  }

  // Writes the block of PBKDF2's output with this number, counted from 1.
  void Run(std::span<const std::byte> salt, uint32_t block_number,
           uint32_t iterations, Digest& result) const {
    Digest digest;
    first_.First(salt, block_number, digest);
    Tail u = PaddingBehindDigest();
    LoadWords({digest.data(), digest.size()}, u.data());
    Words sum;
    std::copy_n(u.begin(), kDigestWords, sum.begin());
    State state;
    for (uint32_t i = 1; i < iterations; ++i) {
      Compress(state = inner_, u);
      Compress(state = outer_, u);
      for (size_t j = 0; j < kDigestWords; ++j) sum[j] ^= u[j];
    }
    for (size_t j = 0; j < kDigestWords; ++j) {
      const Word word = ToByteOrder(sum[j]);
      std::memcpy(result.data() + j * sizeof(Word), &word, sizeof(Word));
    }
  }

 private:
  using Hash = typename Entry::Hash;
  using Word = typename Hash::HashWordType;
  static constexpr size_t kBlockWords = Entry::kBlockSize / sizeof(Word);
  static constexpr size_t kDigestWords = Entry::kDigestSize / sizeof(Word);
  // The digest, a padding bit and the length (32 bytes long in Whirlpool).
  static constexpr size_t kLengthSize =
      std::is_same_v<Hash, CryptoPP::Whirlpool> ? 32 : 2 * sizeof(Word);
  static constexpr size_t kTailBlocks =
      (Entry::kDigestSize + 1 + kLengthSize + Entry::kBlockSize - 1) /
      Entry::kBlockSize;
  static constexpr bool kBigEndian =
      std::is_same_v<typename Hash::ByteOrderClass, CryptoPP::BigEndian>;
  static_assert(Entry::kDigestSize % sizeof(Word) == 0);

  // No hash of the list has a state of more than 8 words.
  using State = CryptoPP::FixedSizeAlignedSecBlock<Word, 8, true>;
  using Words = CryptoPP::FixedSizeSecBlock<Word, kDigestWords>;
  using Tail =
      CryptoPP::FixedSizeAlignedSecBlock<Word, kTailBlocks * kBlockWords, true>;

  static Word ToByteOrder(Word word) {
    return CryptoPP::ConditionalByteReverse(Hash::ByteOrderClass::ToEnum(),
                                            word);
  }

  static void LoadWords(std::span<const CryptoPP::byte> bytes, Word* words) {
    for (size_t i = 0; i < bytes.size() / sizeof(Word); ++i) {
      std::memcpy(&words[i], bytes.data() + i * sizeof(Word), sizeof(Word));
      words[i] = ToByteOrder(words[i]);
    }
  }

  static void Start(State& state, const HmacKeyBlock<Entry>& block) {
    CryptoPP::FixedSizeAlignedSecBlock<Word, kBlockWords, true> words;
    LoadWords(block.bytes(), words.data());
    Hash::InitState(state.data());
    Hash::Transform(state.data(), words.data());
  }

  // What follows a digest that was hashed behind one key block.
  static Tail PaddingBehindDigest() {
    constexpr Word kMessageBits = 8 * (Entry::kBlockSize + Entry::kDigestSize);
    Tail tail;
    std::fill(tail.begin(), tail.end(), Word{0});
    tail[kDigestWords] =
        kBigEndian ? Word{0x80} << (8 * (sizeof(Word) - 1)) : Word{0x80};
    tail[tail.size() - (kBigEndian ? 1 : 2)] = kMessageBits;
    return tail;
  }

  // Compresses `u` and its padding, and puts the new digest in its place.
  static void Compress(State& state, Tail& u) {
    for (size_t block = 0; block < kTailBlocks; ++block) {
      Hash::Transform(state.data(), u.data() + block * kBlockWords);
    }
    std::copy_n(state.begin(), kDigestWords, u.begin());
  }

  CopiedHashChain<Entry> first_;
  State inner_;
  State outer_;
};

template <class Entry>
using HmacChain =
    std::conditional_t<HasCompressionFunction<typename Entry::Hash>,
                       CompressionChain<Entry>, CopiedHashChain<Entry>>;

}  // namespace pellucid::crypto

#endif  // PELLUCID_CRYPTO_HMAC_CHAIN_H_
