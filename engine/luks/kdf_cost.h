#ifndef PELLUCID_ENGINE_LUKS_KDF_COST_H_
#define PELLUCID_ENGINE_LUKS_KDF_COST_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "engine/luks/volume_header.h"

namespace pellucid::luks {

// What is accepted in a header and therefore put into one.
inline constexpr uint32_t kMinArgon2KiB = 8;  // The algorithm's, for each lane.
inline constexpr uint32_t kMaxArgon2KiB = 4 << 20;
inline constexpr uint32_t kMaxArgon2Lanes = 64;
// Passes times KiB: an hour's work. Nobody waits longer for a real volume.
inline constexpr uint64_t kMaxArgon2Work = uint64_t{1} << 32;

// What deriving a key may cost. Whatever is not given is measured on this
// machine so that one derivation takes `iter_time_ms`.
struct KdfCost {
  std::string type =
      "argon2id";               // pbkdf2, argon2i, argon2id; LUKS1 has pbkdf2.
  std::string hash = "sha256";  // pbkdf2 only; LUKS1 has one for the volume.
  unsigned iter_time_ms = 2000;
  std::optional<uint32_t> iterations;  // pbkdf2.
  std::optional<uint32_t> time;        // argon2, as the next two.
  std::optional<uint32_t> memory_kib;
  std::optional<uint32_t> cpus;
};

// Refuses a cost below what cryptsetup takes for safe (1000 iterations; 4
// passes over 32 KiB), above what we read, or that mixes the parameters of two
// algorithms. Throws UsageError, and Unsupported for an unknown hash.
void CheckKdfCost(const KdfCost& cost);

// A derivation with a fresh salt for keys of `key_bytes` bytes. Takes about a
// second if anything has to be measured. Requires that CheckKdfCost() accepts
// `cost`. Argon2 takes at most 1 GiB, half of the machine's memory and 4 lanes
// unless told otherwise.
Kdf NewKdf(const KdfCost& cost, size_t key_bytes);

// The derivation of a digest of a volume key, with a fresh salt: an eighth of a
// second, or 1000 iterations if `cost` says how much the keyslot costs.
Kdf NewDigestKdf(const std::string& hash, const KdfCost& cost);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_KDF_COST_H_
