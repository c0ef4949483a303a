#include "engine/luks/unlock.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "crypto/anti_forensic.h"
#include "crypto/argon2.h"
#include "crypto/pbkdf2.h"
#include "engine/errors.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

void Derive(const Kdf& kdf, std::span<const std::byte> passphrase,
            std::span<std::byte> out) {
  if (kdf.type == "pbkdf2") {
    crypto::Pbkdf2(kdf.hash, passphrase, kdf.salt, kdf.iterations, out);
    return;
  }
  const auto type =
      kdf.type == "argon2i" ? crypto::Argon2Type::kI : crypto::Argon2Type::kId;
  crypto::Argon2(
      type, passphrase, kdf.salt,
      {.time = kdf.time, .memory_kib = kdf.memory_kib, .lanes = kdf.cpus}, out);
}

bool Confirms(const Digest& digest, const SecretBytes& key) {
  std::vector<std::byte> value(digest.value.size());
  Derive(digest.kdf, key.bytes(), value);
  return crypto::ConstantTimeEquals(value, digest.value);
}

// The key that `passphrase` takes out of the slot, right or wrong. LUKS1
// On-Disk Format, section 4.2; LUKS2 keeps the same scheme.
SecretBytes RecoverKey(const LocatedHeader& located, const Keyslot& slot,
                       const SecretBytes& passphrase) {
  SecretBytes derived(slot.area_key_size);
  Derive(slot.kdf, passphrase.bytes(), derived.bytes());
  SecretBytes material(slot.split_bytes());
  located.device->Read(located.offset + slot.area_offset, material.bytes());
  // The key material counts its sectors from 0.
  crypto::MakeSectorCipher(slot.area_encryption.Spec(), derived.bytes())
      ->Decrypt(0, material.bytes(), material.bytes());
  return crypto::AntiForensicMerge(
      slot.af_hash,
      material.bytes().first(size_t{slot.key_size} * slot.stripes),
      slot.stripes);
}

// A keyslot and the digest that tells whether its key is the volume's.
struct Candidate {
  const Keyslot* slot;
  const Digest* digest;
};

// The digest that covers the first encrypted segment.
const Digest* VolumeDigest(const VolumeHeader& header) {
  for (const Segment& segment : header.segments) {
    if (!segment.encryption) continue;
    for (const Digest& digest : header.digests) {
      if (std::ranges::find(digest.segments, segment.id) !=
          digest.segments.end()) {
        return &digest;
      }
    }
  }
  return nullptr;
}

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

}  // namespace

SecretBytes Unlock(const LocatedHeader& located, const std::string& layer,
                   std::optional<unsigned> keyslot,
                   PassphraseSource& passphrases) {
  const std::vector<Candidate> slots = SlotsToTry(located, keyslot);
  for (unsigned attempt = 0;; ++attempt) {
    const std::optional<SecretBytes> passphrase =
        passphrases.Get(layer, attempt);
    if (!passphrase) break;
    for (const Candidate& candidate : slots) {
      SecretBytes key = RecoverKey(located, *candidate.slot, *passphrase);
      if (!Confirms(*candidate.digest, key)) continue;
      passphrases.Accepted();
      return key;
    }
  }
  throw WrongPassphrase(
      keyslot ? fmt::format("{}: wrong passphrase: it does not open keyslot {}",
                            layer, *keyslot)
              : fmt::format("{}: wrong passphrase: it opens none of the {} "
                            "keyslots in use",
                            layer, slots.size()));
}

}  // namespace pellucid::luks
