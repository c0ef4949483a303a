#include "engine/luks/weaknesses.h"

#include <fmt/format.h>

namespace pellucid::luks {
namespace {

// A guess costs less than some 50 milliseconds of one processor of today.
constexpr uint32_t kFewIterations = 100'000;

// The least that OWASP recommends for Argon2id: 19 MiB in two passes (Password
// Storage Cheat Sheet). Much of one makes up for little of the other.
constexpr uint64_t kLittleMemoryPasses = uint64_t{2} * 19 * 1024;

std::string CheapKdf(const KeyslotInfo& keyslot) {
  if (keyslot.iterations != 0) {
    return keyslot.iterations < kFewIterations
               ? fmt::format("{} with {} iterations", keyslot.kdf,
                             keyslot.iterations)
               : "";
  }
  return uint64_t{keyslot.memory_kib} * keyslot.time < kLittleMemoryPasses
             ? fmt::format("{} with {} passes over {} KiB", keyslot.kdf,
                           keyslot.time, keyslot.memory_kib)
             : "";
}

}  // namespace

std::vector<std::string> WeaknessesOf(const LuksInfo& info) {
  std::vector<std::string> weaknesses;
  if (info.mode.starts_with("ecb")) {
    weaknesses.push_back(fmt::format("{}-{} shows which sectors are alike",
                                     info.cipher, info.mode));
  }
  for (const KeyslotInfo& keyslot : info.keyslots) {
    const std::string kdf = CheapKdf(keyslot);
    if (kdf.empty()) continue;
    weaknesses.push_back(
        fmt::format("guessing the passphrase of keyslot {} is cheap: {}",
                    keyslot.index, kdf));
  }
  return weaknesses;
}

}  // namespace pellucid::luks
