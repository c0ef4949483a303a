#include "engine/luks/unlock.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "engine/errors.h"
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
