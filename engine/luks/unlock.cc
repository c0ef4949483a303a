#include "engine/luks/unlock.h"

#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <future>
#include <mutex>
#include <new>
#include <set>
#include <span>
#include <thread>
#include <vector>

#include "crypto/hash.h"
#include "engine/errors.h"
#include "engine/luks/kdf_cost.h"
#include "engine/luks/key_material.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

// The key that `passphrase` takes out of the slot, right or wrong.
SecretBytes RecoverKey(const LocatedHeader& located, const Keyslot& slot,
                       const SecretBytes& passphrase) {
  std::vector<std::byte> material(slot.split_bytes());
  located.device->Read(located.offset + slot.area_offset, material);
  return OpenKeyMaterial(slot, material, passphrase);
}

// A keyslot and the digest that tells whether its key is the volume's.
struct Candidate {
  const Keyslot* slot;
  const Digest* digest;
};

std::vector<Candidate> SlotsToTry(const LocatedHeader& located,
                                  std::optional<unsigned> keyslot) {
  const VolumeHeader& header = located.header;
  const Digest* digest = VolumeDigest(header);
  std::vector<Candidate> slots;
  for (const Keyslot& slot : header.keyslots) {
    // Keyslots of other keys ("unbound") open nothing here.
    if (digest == nullptr || !digest->covers_keyslot(slot.id)) continue;
    const bool wanted =
        keyslot ? *keyslot == slot.id : slot.priority != Priority::kIgnore;
    if (wanted) slots.push_back({&slot, digest});
  }
  std::ranges::stable_sort(slots, std::ranges::greater(),
                           [](const Candidate& c) { return c.slot->priority; });
  if (slots.empty()) {
    throw WrongPassphrase(
        keyslot ? fmt::format("{}: keyslot {} is not in use for this volume; "
                              "`pellucid info` lists those that are",
                              located.file_name, *keyslot)
                : fmt::format("{}: no keyslot is in use: nothing opens this "
                              "volume any more",
                              located.file_name));
  }
  return slots;
}

// Threads that one derivation keeps busy.
unsigned ThreadsOf(const Keyslot& slot) {
  if (slot.kdf.type != "pbkdf2") return slot.kdf.cpus;
  const size_t digest = crypto::DigestSize(slot.kdf.hash);
  return static_cast<unsigned>((slot.area_key_size + digest - 1) / digest);
}

// Is `slot` no dearer than `first`, as far as their costs can be compared? A
// derivation cannot be stopped, so that whoever opens `first` waits for it.
bool IsNoDearer(const Kdf& slot, const Kdf& first) {
  if (slot.type != first.type || slot.hash != first.hash) return false;
  if (slot.type == "pbkdf2") return slot.iterations <= first.iterations;
  const auto work = [](const Kdf& kdf) {
    return uint64_t{kdf.time} * kdf.memory_kib / kdf.cpus;
  };
  return work(slot) <= work(first);
}

// How many of the first `slots` can be tried at once without getting into each
// other's way: there are cores for them, half the free memory and no more than
// `max_kib` of it, and none takes longer than the first. At least 1.
size_t AtOnce(std::span<const Candidate> slots, uint64_t max_kib) {
  const uint64_t free_kib = static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)) *
                            static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) / 1024;
  unsigned cores = std::thread::hardware_concurrency();
  uint64_t memory_kib = std::min(free_kib / 2, max_kib);
  size_t count = 0;
  for (const Candidate& candidate : slots) {
    const unsigned threads = ThreadsOf(*candidate.slot);
    if (threads > cores || candidate.slot->kdf.memory_kib > memory_kib ||
        !IsNoDearer(candidate.slot->kdf, slots.front().slot->kdf)) {
      break;
    }
    cores -= threads;
    memory_kib -= candidate.slot->kdf.memory_kib;
    ++count;
  }
  return std::max<size_t>(count, 1);
}

std::string MemoryText(uint64_t kib) {
  return kib % 1024 == 0 ? fmt::format("{}M", kib / 1024)
                         : fmt::format("{}K", kib);
}

// That `slot` takes more memory than `max_kib`.
IoError TooDear(const std::string& layer, const Keyslot& slot,
                uint64_t max_kib) {
  return IoError(
      ENOMEM,
      fmt::format("{}: keyslot {} was not tried: its key derivation ({}) takes "
                  "{} of memory, above the {} that is allowed; if you trust "
                  "this header, say --max-kdf-memory {}",
                  layer, slot.id, slot.kdf.type,
                  MemoryText(slot.kdf.memory_kib), MemoryText(max_kib),
                  MemoryText(slot.kdf.memory_kib)));
}

// Slots that could not be tried.
struct UntriedSlots {
  // One that this machine has no memory for.
  std::atomic<const Keyslot*> too_large = nullptr;
  std::mutex mutex;
  // Guarded by mutex: those whose key material the host could not read.
  std::set<unsigned> unreadable;
  std::exception_ptr read_error;  // Of the last of them.
};

// The volume key, and the slot it is from, if `passphrase` opens one of them.
// Those that cannot be tried go into `untried`; the others are tried all the
// same.
std::optional<UnlockedVolume> TrySlots(const LocatedHeader& located,
                                       std::span<const Candidate> slots,
                                       const SecretBytes& passphrase,
                                       uint64_t max_kib,
                                       UntriedSlots& untried) {
  const auto attempt = [&](const Candidate& candidate) {
    std::optional<UnlockedVolume> volume;
    try {
      SecretBytes key = RecoverKey(located, *candidate.slot, passphrase);
      if (Confirms(*candidate.digest, key)) {
        volume = {.key = std::move(key), .keyslot = candidate.slot->id};
      }
    } catch (const std::bad_alloc&) {
      untried.too_large = candidate.slot;
    } catch (const IoError&) {
      const std::scoped_lock lock(untried.mutex);
      untried.unreadable.insert(candidate.slot->id);
      untried.read_error = std::current_exception();
    }
    return volume;
  };
  while (!slots.empty()) {
    const size_t count = AtOnce(slots, max_kib);
    std::vector<std::future<std::optional<UnlockedVolume>>> attempts;
    for (const Candidate& candidate : slots.subspan(1, count - 1)) {
      attempts.push_back(std::async(std::launch::async, attempt, candidate));
    }
    std::optional<UnlockedVolume> volume = attempt(slots.front());
    for (auto& other : attempts) {
      std::optional<UnlockedVolume> found = other.get();
      if (!volume) volume = std::move(found);
    }
    if (volume) return volume;
    slots = slots.subspan(count);
  }
  return std::nullopt;
}

}  // namespace

uint64_t DefaultMaxKdfMemory() {
  constexpr uint64_t kMost = uint64_t{kMaxArgon2KiB} * 1024;
  struct sysinfo machine = {};
  if (sysinfo(&machine) != 0) return kMost;
  const uint64_t units = machine.totalram + machine.totalswap;
  return std::min(kMost, units * machine.mem_unit);
}

UnlockedVolume UnlockVolume(const LocatedHeader& located,
                            const std::string& layer,
                            std::optional<unsigned> keyslot,
                            PassphraseSource& passphrases,
                            std::optional<uint64_t> max_kdf_memory) {
  if (std::optional<SecretBytes> key = passphrases.GetVolumeKey(layer)) {
    const Digest* digest = VolumeDigest(located.header);
    if (digest == nullptr || !Confirms(*digest, *key)) {
      throw WrongPassphrase(fmt::format(
          "{}: wrong volume key: the digest in the header does not fit it",
          layer));
    }
    return {.key = std::move(*key), .keyslot = std::nullopt};
  }
  const uint64_t max_kib =
      max_kdf_memory.value_or(DefaultMaxKdfMemory()) / 1024;
  std::vector<Candidate> slots = SlotsToTry(located, keyslot);
  const auto dear = std::stable_partition(
      slots.begin(), slots.end(), [&](const Candidate& candidate) {
        return candidate.slot->kdf.memory_kib <= max_kib;
      });
  const Keyslot* const too_dear = dear == slots.end() ? nullptr : dear->slot;
  slots.erase(dear, slots.end());
  if (slots.empty()) throw TooDear(layer, *too_dear, max_kib);
  UntriedSlots untried;
  for (unsigned attempt = 0;; ++attempt) {
    const std::optional<SecretBytes> passphrase =
        passphrases.Get(layer, attempt);
    if (!passphrase) break;
    std::optional<UnlockedVolume> volume =
        TrySlots(located, slots, *passphrase, max_kib, untried);
    // No passphrase would help.
    if (untried.unreadable.size() == slots.size()) break;
    if (!volume) continue;
    passphrases.Accepted();
    return std::move(*volume);
  }
  // What could not be tried may be what the passphrase is for.
  if (untried.read_error) std::rethrow_exception(untried.read_error);
  if (too_dear != nullptr) throw TooDear(layer, *too_dear, max_kib);
  if (const Keyslot* slot = untried.too_large) {
    throw IoError(
        ENOMEM,
        fmt::format("{}: keyslot {} could not be tried: its key derivation "
                    "takes {} KiB of memory, which this machine does not give",
                    layer, slot->id, slot->kdf.memory_kib));
  }
  throw WrongPassphrase(
      keyslot ? fmt::format("{}: wrong passphrase: it does not open keyslot {}",
                            layer, *keyslot)
              : fmt::format("{}: wrong passphrase: it opens none of the {} "
                            "keyslots in use",
                            layer, slots.size()));
}

SecretBytes Unlock(const LocatedHeader& located, const std::string& layer,
                   std::optional<unsigned> keyslot,
                   PassphraseSource& passphrases,
                   std::optional<uint64_t> max_kdf_memory) {
  return UnlockVolume(located, layer, keyslot, passphrases, max_kdf_memory).key;
}

}  // namespace pellucid::luks
