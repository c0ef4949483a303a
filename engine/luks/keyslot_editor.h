#ifndef PELLUCID_ENGINE_LUKS_KEYSLOT_EDITOR_H_
#define PELLUCID_ENGINE_LUKS_KEYSLOT_EDITOR_H_

#include <memory>
#include <optional>

#include "crypto/secret_bytes.h"
#include "engine/luks/kdf_cost.h"
#include "engine/luks/keyslot_table.h"

namespace pellucid::luks {

struct NewKeyslot {
  std::optional<unsigned> id;        // The lowest free one if empty.
  KdfCost kdf;                       // With LUKS1, the type must be pbkdf2.
  std::optional<Priority> priority;  // LUKS2: normal if empty, or as it was.
};

// Adds, removes and changes the keyslots of a volume, LUKS1 or LUKS2. Whatever
// moment a change is cut off at, the header opens with the passphrases from
// before or with those from after it. All of it but located() may throw IoError
// and what luks::ReadLuksHeader() throws. Not synchronised.
class KeyslotEditor {
 public:
  explicit KeyslotEditor(const WritableHeader& header);

  // The header as it stands now; luks::Unlock() takes it.
  const LocatedHeader& located() const { return table_->located(); }

  // Lets `passphrase` open the volume. `volume_key` is what an unlocked keyslot
  // has given. The key material is written, read back and unlocked before the
  // header refers to it. Returns the keyslot's number. Throws UsageError if
  // there is no free keyslot, `wanted.id` is in use, or the cost is refused.
  unsigned Add(const crypto::SecretBytes& volume_key,
               const crypto::SecretBytes& passphrase, const NewKeyslot& wanted);

  // Throws UsageError if keyslot `id` is not in use, or is the last that opens
  // the volume, unless `force`.
  void CheckRemoval(unsigned id, bool force) const;

  // Overwrites the key material with noise, then lets the header forget the
  // keyslot. Cut off in between, the keyslot opens nothing and can be removed
  // again. Throws as CheckRemoval() does.
  void Remove(unsigned id, bool force);

  // Replaces the passphrase of keyslot `id`; its old key material becomes
  // noise. LUKS2 keeps the number, and what refers to it; LUKS1 puts the new
  // passphrase into a free keyslot, wanted.id if given. Returns the number.
  // Throws as Add() does, and UsageError for a keyslot of another key.
  unsigned Change(unsigned id, const crypto::SecretBytes& volume_key,
                  const crypto::SecretBytes& passphrase,
                  const NewKeyslot& wanted);

 private:
  const Keyslot& Find(unsigned id) const;
  bool IsLastOfVolume(unsigned id) const;
  void CheckWanted(const NewKeyslot& wanted) const;
  // Fills the slot that the table has reserved and lets the header have it.
  void Install(Keyslot slot, const crypto::SecretBytes& volume_key,
               const crypto::SecretBytes& passphrase, const NewKeyslot& wanted);
  void WriteVerified(const Keyslot& slot, const crypto::SecretBytes& volume_key,
                     const crypto::SecretBytes& passphrase);
  void Wipe(const Keyslot& slot);

  const WritableHeader header_;
  std::unique_ptr<KeyslotTable> table_;
};

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_KEYSLOT_EDITOR_H_
