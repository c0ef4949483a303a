#include "crypto/pbkdf2.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <future>
#include <stdexcept>
#include <thread>
#include <vector>

#include "crypto/byte_order.h"
#include "crypto/hash_list.h"
#include "crypto/hmac_chain.h"
#include "crypto/stack_wipe.h"

namespace pellucid::crypto {
namespace {

// Below this a thread costs more than it saves.
constexpr uint64_t kIterationsWorthAThread = 5000;

// Derives blocks first, first + step, first + 2 * step ... of `out`.
template <class Entry>
void DeriveBlocks(const HmacChain<Entry>& key, std::span<const std::byte> salt,
                  uint32_t iterations, size_t first, size_t step,
                  std::span<std::byte> out) {
  // Other threads have stacks of their own, which outlive them.
  const StackWipe hashing;
  typename HmacChain<Entry>::Digest block;
  for (size_t index = first; index * Entry::kDigestSize < out.size();
       index += step) {
    key.Run(salt, static_cast<uint32_t>(index + 1), iterations, block);
    const std::span<std::byte> target = out.subspan(index * Entry::kDigestSize);
    std::memcpy(target.data(), block.data(),
                std::min(target.size(), Entry::kDigestSize));
  }
}

template <class Entry>
void DeriveKey(std::span<const std::byte> passphrase,
               std::span<const std::byte> salt, uint32_t iterations,
               std::span<std::byte> out) {
  const StackWipe key_setup;
  const HmacChain<Entry> key(passphrase);
  const size_t blocks =
      (out.size() + Entry::kDigestSize - 1) / Entry::kDigestSize;
  const size_t threads =
      iterations < kIterationsWorthAThread
          ? 1
          : std::clamp<size_t>(std::thread::hardware_concurrency(), 1, blocks);
  std::vector<std::future<void>> others;
  for (size_t thread = 1; thread < threads; ++thread) {
    others.push_back(std::async(std::launch::async, [&, thread] {
      DeriveBlocks<Entry>(key, salt, iterations, thread, threads, out);
    }));
  }
  DeriveBlocks<Entry>(key, salt, iterations, 0, threads, out);
  for (std::future<void>& other : others) other.get();
}

}  // namespace

void Pbkdf2(std::string_view hash, std::span<const std::byte> passphrase,
            std::span<const std::byte> salt, uint32_t iterations,
            std::span<std::byte> out) {
  if (iterations == 0) {
    throw std::invalid_argument("PBKDF2 with 0 iterations");
  }
  WithHash(hash, [&]<class Entry>(const Entry&) {
    if (!out.empty()) DeriveKey<Entry>(passphrase, salt, iterations, out);
  });
}

}  // namespace pellucid::crypto
