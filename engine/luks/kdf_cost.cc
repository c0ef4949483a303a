#include "engine/luks/kdf_cost.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#include "crypto/hash.h"
#include "crypto/random_bytes.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"
#include "engine/luks/key_material.h"

namespace pellucid::luks {
namespace {

constexpr size_t kSaltBytes = 32;
constexpr uint32_t kMinIterations = 1000;
constexpr uint32_t kMinPasses = 4;
constexpr uint32_t kMinNewArgon2KiB = 32;
constexpr uint32_t kMaxNewLanes = 4;
constexpr uint32_t kMeasuredLeastKiB = 32 << 10;
constexpr uint32_t kMeasuredMostKiB = 1 << 20;
constexpr unsigned kDigestMilliseconds = 125;

// How long one derivation takes, in milliseconds.
double Measure(const Kdf& kdf, size_t key_bytes) {
  const std::vector<std::byte> any_passphrase(16, std::byte{'x'});
  std::vector<std::byte> key(key_bytes);
  const auto begin = std::chrono::steady_clock::now();
  Derive(kdf, any_passphrase, key);
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - begin;
  return std::max(elapsed.count(), 0.001);
}

uint32_t ToCount(double value, uint32_t least, double most) {
  return std::max(least, static_cast<uint32_t>(std::min(value, most)));
}

uint32_t IterationsFor(Kdf kdf, size_t key_bytes, double milliseconds) {
  constexpr double kLongEnough = 60;
  constexpr double kMostIterations = UINT32_MAX;
  // Enough for the blocks of a long key to be derived in parallel.
  kdf.iterations = 8192;
  for (;;) {
    const double elapsed = Measure(kdf, key_bytes);
    if (elapsed >= kLongEnough || kdf.iterations > kMostIterations / 2) {
      return ToCount(kdf.iterations * milliseconds / elapsed, kMinIterations,
                     kMostIterations);
    }
    kdf.iterations *= 2;
  }
}

uint32_t MemoryLimitKiB() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return kMeasuredLeastKiB;
  const uint64_t half =
      static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes) / 2048;
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(half, kMeasuredLeastKiB, kMeasuredMostKiB));
}

// Milliseconds for one pass over one KiB: with more and more memory, until the
// time is long enough to be measured.
double Argon2Unit(Kdf probe, uint32_t limit_kib, size_t key_bytes) {
  constexpr double kLongEnough = 200;
  probe.time = kMinPasses;
  probe.memory_kib = std::min(kMeasuredLeastKiB, limit_kib);
  for (;;) {
    const double elapsed = Measure(probe, key_bytes);
    if (elapsed >= kLongEnough || probe.memory_kib == limit_kib) {
      return elapsed / (double{kMinPasses} * probe.memory_kib);
    }
    probe.memory_kib = std::min(2 * probe.memory_kib, limit_kib);
  }
}

void SetArgon2Cost(const KdfCost& cost, size_t key_bytes, Kdf& kdf) {
  const unsigned cores = std::max(std::thread::hardware_concurrency(), 1U);
  // A given memory may be too little for all of the lanes.
  const uint32_t most_lanes =
      cost.memory_kib ? *cost.memory_kib / kMinArgon2KiB : kMaxNewLanes;
  kdf.cpus = cost.cpus.value_or(
      std::clamp<uint32_t>(cores, 1, std::min(kMaxNewLanes, most_lanes)));
  if (cost.time && cost.memory_kib) {
    kdf.time = *cost.time;
    kdf.memory_kib = *cost.memory_kib;
    return;
  }
  const uint32_t limit = cost.memory_kib.value_or(MemoryLimitKiB());
  const double passes_over_kib =
      cost.iter_time_ms / Argon2Unit(kdf, limit, key_bytes);
  kdf.memory_kib = cost.memory_kib.value_or(
      ToCount(passes_over_kib / cost.time.value_or(kMinPasses),
              kMeasuredLeastKiB, limit));
  kdf.time = cost.time.value_or(
      ToCount(passes_over_kib / kdf.memory_kib, kMinPasses,
              static_cast<double>(kMaxArgon2Work) / kdf.memory_kib));
}

void CheckPbkdf2(const KdfCost& cost) {
  if (cost.time || cost.memory_kib || cost.cpus) {
    throw UsageError(
        "pbkdf2 has no passes, memory and lanes: those belong to argon2i and "
        "argon2id");
  }
  try {
    crypto::DigestSize(cost.hash);
  } catch (const crypto::UnsupportedAlgorithm& e) {
    throw Unsupported(fmt::format("pbkdf2: {}", e.what()));
  }
  if (cost.iterations.value_or(kMinIterations) < kMinIterations) {
    throw UsageError(fmt::format("pbkdf2 takes at least {} iterations, not {}",
                                 kMinIterations, *cost.iterations));
  }
}

void CheckArgon2(const KdfCost& cost) {
  const auto check = [&](const char* what, std::optional<uint32_t> value,
                         uint32_t least, uint32_t most) {
    if (!value || (*value >= least && *value <= most)) return;
    throw UsageError(fmt::format("{} takes {} to {} {}, not {}", cost.type,
                                 least, most, what, *value));
  };
  if (cost.iterations) {
    throw UsageError(fmt::format(
        "{} has passes (its time), not iterations: those belong to pbkdf2",
        cost.type));
  }
  check("passes", cost.time, kMinPasses, UINT32_MAX);
  check("KiB of memory", cost.memory_kib, kMinNewArgon2KiB, kMaxArgon2KiB);
  check("lanes (cpus)", cost.cpus, 1, kMaxNewLanes);
  const uint64_t least_kib = cost.memory_kib.value_or(kMeasuredLeastKiB);
  if (cost.time.value_or(kMinPasses) * least_kib > kMaxArgon2Work) {
    throw UsageError(
        fmt::format("{} with {} passes over {} KiB or more would take hours",
                    cost.type, cost.time.value_or(kMinPasses), least_kib));
  }
  if (least_kib < uint64_t{kMinArgon2KiB} * cost.cpus.value_or(1)) {
    throw UsageError(fmt::format("{} takes at least {} KiB for each lane",
                                 cost.type, kMinArgon2KiB));
  }
}

}  // namespace

void CheckKdfCost(const KdfCost& cost) {
  if (cost.iter_time_ms == 0) {
    throw UsageError("the time for one key derivation cannot be 0");
  }
  if (cost.type == "pbkdf2") {
    CheckPbkdf2(cost);
  } else if (cost.type == "argon2i" || cost.type == "argon2id") {
    CheckArgon2(cost);
  } else {
    throw UsageError(fmt::format(
        "there is no key derivation \"{}\"; there are pbkdf2, argon2i and "
        "argon2id",
        cost.type));
  }
}

Kdf NewKdf(const KdfCost& cost, size_t key_bytes) {
  Kdf kdf;
  kdf.type = cost.type;
  kdf.salt.resize(kSaltBytes);
  crypto::FillRandom(kdf.salt);
  if (cost.type == "pbkdf2") {
    kdf.hash = cost.hash;
    kdf.iterations = cost.iterations
                         ? *cost.iterations
                         : IterationsFor(kdf, key_bytes, cost.iter_time_ms);
  } else {
    SetArgon2Cost(cost, key_bytes, kdf);
  }
  return kdf;
}

Kdf NewDigestKdf(const std::string& hash, const KdfCost& cost) {
  const KdfCost digest_cost = {.type = "pbkdf2",
                               .hash = hash,
                               .iter_time_ms = kDigestMilliseconds,
                               .iterations = cost.iterations || cost.time
                                                 ? std::optional(kMinIterations)
                                                 : std::nullopt,
                               .time = std::nullopt,
                               .memory_kib = std::nullopt,
                               .cpus = std::nullopt};
  return NewKdf(digest_cost, crypto::DigestSize(hash));
}

}  // namespace pellucid::luks
