#include "engine/luks/keyslot_editor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>
#include <vector>

#include "crypto/random_bytes.h"
#include "engine/errors.h"
#include "engine/luks/key_material.h"

namespace pellucid::luks {

using crypto::SecretBytes;

KeyslotEditor::KeyslotEditor(const WritableHeader& header)
    : header_(header), table_(OpenKeyslotTable(header)) {}

const Keyslot& KeyslotEditor::Find(unsigned id) const {
  const std::vector<Keyslot>& slots = located().header.keyslots;
  const auto found = std::ranges::find(slots, id, &Keyslot::id);
  if (found == slots.end()) {
    throw UsageError(fmt::format(
        "{}: keyslot {} is not in use; `pellucid key list` shows those that "
        "are",
        header_.file_name, id));
  }
  return *found;
}

bool KeyslotEditor::IsLastOfVolume(unsigned id) const {
  const Digest* digest = VolumeDigest(located().header);
  if (digest == nullptr || !digest->covers_keyslot(id)) return false;
  return std::ranges::none_of(
      located().header.keyslots, [&](const Keyslot& slot) {
        return slot.id != id && digest->covers_keyslot(slot.id);
      });
}

void KeyslotEditor::CheckWanted(const NewKeyslot& wanted) const {
  if (located().header.version == 1) {
    if (wanted.kdf.type != "pbkdf2") {
      throw UsageError(fmt::format("{}: LUKS1 has pbkdf2, not {}",
                                   header_.file_name, wanted.kdf.type));
    }
    if (wanted.priority) {
      throw UsageError(fmt::format("{}: LUKS1 keyslots have no priority",
                                   header_.file_name));
    }
  }
  CheckKdfCost(wanted.kdf);
}

void KeyslotEditor::Wipe(const Keyslot& slot) {
  constexpr uint64_t kPiece = 256 << 10;
  std::vector<std::byte> noise(std::min(slot.area_size, kPiece));
  for (uint64_t at = 0; at < slot.area_size; at += noise.size()) {
    const std::span piece = std::span(noise).first(
        std::min<uint64_t>(noise.size(), slot.area_size - at));
    crypto::FillRandom(piece);
    header_.device->Write(header_.offset + slot.area_offset + at, piece);
  }
  header_.device->Flush();
}

void KeyslotEditor::WriteVerified(const Keyslot& slot,
                                  const SecretBytes& volume_key,
                                  const SecretBytes& passphrase) {
  std::vector<std::byte> material =
      SealKeyMaterial(slot, volume_key, passphrase);
  const uint64_t at = header_.offset + slot.area_offset;
  header_.device->Write(at, material);
  header_.device->Flush();
  header_.device->Read(at, material);
  const SecretBytes key = OpenKeyMaterial(slot, material, passphrase);
  if (!Confirms(*VolumeDigest(located().header), key)) {
    throw IoError(EIO,
                  fmt::format("{}: the key material of keyslot {} (byte {}) "
                              "does not read back as it was written; the "
                              "header does not refer to it",
                              header_.file_name, slot.id, at));
  }
}

void KeyslotEditor::Install(Keyslot slot, const SecretBytes& volume_key,
                            const SecretBytes& passphrase,
                            const NewKeyslot& wanted) {
  KdfCost cost = wanted.kdf;
  if (located().header.version == 1) cost.hash = slot.af_hash;
  slot.kdf = NewKdf(cost, slot.area_key_size);
  table_->CheckRoomFor(slot);
  WriteVerified(slot, volume_key, passphrase);
  table_->Commit(slot);
}

unsigned KeyslotEditor::Add(const SecretBytes& volume_key,
                            const SecretBytes& passphrase,
                            const NewKeyslot& wanted) {
  CheckWanted(wanted);
  if (wanted.id &&
      std::ranges::find(located().header.keyslots, *wanted.id, &Keyslot::id) !=
          located().header.keyslots.end()) {
    throw UsageError(
        fmt::format("{}: keyslot {} is in use; name a free one, or none",
                    header_.file_name, *wanted.id));
  }
  Keyslot slot = table_->Reserve(wanted.id, volume_key.size());
  slot.priority = wanted.priority.value_or(Priority::kNormal);
  const unsigned id = slot.id;
  Install(std::move(slot), volume_key, passphrase, wanted);
  return id;
}

void KeyslotEditor::CheckRemoval(unsigned id, bool force) const {
  Find(id);
  if (force || !IsLastOfVolume(id)) return;
  throw UsageError(fmt::format(
      "{}: keyslot {} is the last one that opens the volume: without it, and "
      "without a header backup, the data is lost; --force removes it",
      header_.file_name, id));
}

void KeyslotEditor::Remove(unsigned id, bool force) {
  CheckRemoval(id, force);
  Wipe(Find(id));
  table_->Remove(id);
}

unsigned KeyslotEditor::Change(unsigned id, const SecretBytes& volume_key,
                               const SecretBytes& passphrase,
                               const NewKeyslot& wanted) {
  const Keyslot old = Find(id);
  if (located().header.version == 1) {
    const unsigned added = Add(volume_key, passphrase, wanted);
    Remove(id, /*force=*/false);
    return added;
  }
  CheckWanted(wanted);
  if (wanted.id && *wanted.id != id) {
    throw UsageError(fmt::format("{}: a changed LUKS2 keyslot keeps its number",
                                 header_.file_name));
  }
  const Digest* digest = VolumeDigest(located().header);
  if (digest == nullptr || !digest->covers_keyslot(id)) {
    throw UsageError(fmt::format(
        "{}: keyslot {} is unbound: it holds another key than the volume's, "
        "and changing it would lose that; name a keyslot that opens the volume",
        header_.file_name, id));
  }
  Keyslot slot = table_->Reserve(id, volume_key.size());
  slot.priority = wanted.priority.value_or(old.priority);
  Install(std::move(slot), volume_key, passphrase, wanted);
  Wipe(old);
  return id;
}

}  // namespace pellucid::luks
