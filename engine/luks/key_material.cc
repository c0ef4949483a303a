#include "engine/luks/key_material.h"

#include <algorithm>
#include <memory>

#include "crypto/anti_forensic.h"
#include "crypto/argon2.h"
#include "crypto/pbkdf2.h"
#include "crypto/sector_cipher.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

// The cipher of the slot's area. It counts its sectors from 0.
std::unique_ptr<crypto::SectorCipher> AreaCipher(
    const Keyslot& slot, const SecretBytes& passphrase) {
  SecretBytes derived(slot.area_key_size);
  Derive(slot.kdf, passphrase.bytes(), derived.bytes());
  return crypto::MakeSectorCipher(slot.area_encryption.Spec(), derived.bytes());
}

}  // namespace

void Derive(const Kdf& kdf, std::span<const std::byte> secret,
            std::span<std::byte> out) {
  if (kdf.type == "pbkdf2") {
    crypto::Pbkdf2(kdf.hash, secret, kdf.salt, kdf.iterations, out);
    return;
  }
  const auto type =
      kdf.type == "argon2i" ? crypto::Argon2Type::kI : crypto::Argon2Type::kId;
  crypto::Argon2(
      type, secret, kdf.salt,
      {.time = kdf.time, .memory_kib = kdf.memory_kib, .lanes = kdf.cpus}, out);
}

bool Confirms(const Digest& digest, const SecretBytes& key) {
  std::vector<std::byte> value(digest.value.size());
  Derive(digest.kdf, key.bytes(), value);
  return crypto::ConstantTimeEquals(value, digest.value);
}

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

SecretBytes OpenKeyMaterial(const Keyslot& slot,
                            std::span<const std::byte> material,
                            const SecretBytes& passphrase) {
  SecretBytes split(material);
  AreaCipher(slot, passphrase)->Decrypt(0, split.bytes(), split.bytes());
  return crypto::AntiForensicMerge(
      slot.af_hash, split.bytes().first(size_t{slot.key_size} * slot.stripes),
      slot.stripes);
}

std::vector<std::byte> SealKeyMaterial(const Keyslot& slot,
                                       const SecretBytes& key,
                                       const SecretBytes& passphrase) {
  const SecretBytes split =
      crypto::AntiForensicSplit(slot.af_hash, key.bytes(), slot.stripes);
  SecretBytes whole_sectors(slot.split_bytes());
  std::ranges::copy(split.bytes(), whole_sectors.bytes().begin());
  std::vector<std::byte> material(whole_sectors.size());
  AreaCipher(slot, passphrase)->Encrypt(0, whole_sectors.bytes(), material);
  return material;
}

}  // namespace pellucid::luks
