#include "engine/luks/unlock.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "crypto/anti_forensic.h"
#include "crypto/hash.h"
#include "crypto/pbkdf2.h"
#include "crypto/secret_bytes.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

crypto::CipherSpec SpecOf(const Luks1Header& header) {
  return crypto::ParseCipherSpec(header.cipher_name, header.cipher_mode);
}

// Makes every algorithm of the header once, so that a missing one is refused
// before a passphrase is typed and a key derived.
void CheckAlgorithms(const LocatedHeader& located) {
  const Luks1Header& header = located.header;
  const auto refuse = [&](const char* field, size_t byte,
                          const std::exception& why) {
    throw Unsupported(fmt::format("{}: LUKS header field {} (byte {}): {}",
                                  located.file_name, field,
                                  located.offset + byte, why.what()));
  };
  try {
    crypto::DigestSize(header.hash_spec);
  } catch (const crypto::UnsupportedAlgorithm& e) {
    refuse("hash-spec", 72, e);
  }
  try {
    const SecretBytes any_key(header.key_bytes);
    crypto::MakeSectorCipher(SpecOf(header), any_key.bytes());
  } catch (const crypto::UnsupportedAlgorithm& e) {
    refuse("cipher-name or cipher-mode", 8, e);
  }
}

// The volume key if `passphrase` opens the slot. LUKS1 On-Disk Format,
// section 4.2 (master key recovery).
std::optional<SecretBytes> TryKeyslot(const LocatedHeader& located,
                                      const Luks1Keyslot& slot,
                                      const SecretBytes& passphrase) {
  const Luks1Header& header = located.header;
  SecretBytes derived(header.key_bytes);
  crypto::Pbkdf2(header.hash_spec, passphrase.bytes(), slot.salt,
                 slot.iterations, derived.bytes());

  SecretBytes material(header.key_material_bytes());
  located.device->Read(located.offset + slot.key_material_offset * kSectorSize,
                       material.bytes());
  // The key material counts its sectors from 0.
  crypto::MakeSectorCipher(SpecOf(header), derived.bytes())
      ->Decrypt(0, material.bytes(), material.bytes());

  SecretBytes volume_key =
      crypto::AntiForensicMerge(header.hash_spec,
                                std::as_const(material).bytes().first(
                                    size_t{header.key_bytes} * slot.stripes),
                                slot.stripes);
  std::array<std::byte, sizeof header.mk_digest> digest;
  crypto::Pbkdf2(header.hash_spec, volume_key.bytes(), header.mk_digest_salt,
                 header.mk_digest_iterations, digest);
  if (!crypto::ConstantTimeEquals(digest, header.mk_digest)) {
    return std::nullopt;
  }
  return volume_key;
}

std::vector<const Luks1Keyslot*> SlotsToTry(const LocatedHeader& located,
                                            std::optional<unsigned> keyslot) {
  std::vector<const Luks1Keyslot*> slots;
  for (size_t i = 0; i < kLuks1Keyslots; ++i) {
    const Luks1Keyslot& slot = located.header.keyslots[i];
    if (slot.active && (!keyslot || *keyslot == i)) slots.push_back(&slot);
  }
  if (slots.empty()) {
    throw WrongPassphrase(
        keyslot ? fmt::format("{}: keyslot {} is not in use; `pellucid info` "
                              "lists those that are",
                              located.file_name, *keyslot)
                : fmt::format("{}: no keyslot is in use: nothing opens this "
                              "volume any more",
                              located.file_name));
  }
  return slots;
}

}  // namespace

LocatedHeader ReadLuksHeader(BlockDevice& device, uint64_t offset,
                             uint64_t area_bytes, const std::string& file_name,
                             bool payload_follows) {
  std::array<std::byte, kLuks1HeaderBytes> bytes;
  const std::span there =
      std::span(bytes).first(std::min<uint64_t>(bytes.size(), area_bytes));
  device.Read(offset, there);
  const unsigned version = LuksVersion(there);
  if (version == 0) {
    throw CorruptImage(fmt::format(
        "{}: there is no LUKS header at byte {}: the magic is missing",
        file_name, offset));
  }
  if (version != 1) {
    throw Unsupported(
        fmt::format("{}: LUKS header field version (byte {}) is {}; this "
                    "program opens version 1",
                    file_name, offset + 6, version));
  }
  const Luks1Place place = {.file_name = file_name,
                            .offset = offset,
                            .area_bytes = area_bytes,
                            .payload_follows = payload_follows};
  return {.device = &device,
          .offset = offset,
          .file_name = file_name,
          .header = ParseLuks1Header(there, place)};
}

std::unique_ptr<crypto::SectorCipher> Unlock(const LocatedHeader& located,
                                             const std::string& layer,
                                             std::optional<unsigned> keyslot,
                                             PassphraseSource& passphrases) {
  CheckAlgorithms(located);
  const auto slots = SlotsToTry(located, keyslot);
  for (unsigned attempt = 0;; ++attempt) {
    const std::optional<SecretBytes> passphrase =
        passphrases.Get(layer, attempt);
    if (!passphrase) break;
    for (const Luks1Keyslot* slot : slots) {
      const std::optional<SecretBytes> volume_key =
          TryKeyslot(located, *slot, *passphrase);
      if (!volume_key) continue;
      passphrases.Accepted();
      return crypto::MakeSectorCipher(SpecOf(located.header),
                                      volume_key->bytes());
    }
  }
  throw WrongPassphrase(
      keyslot ? fmt::format("{}: wrong passphrase: it does not open keyslot {}",
                            layer, *keyslot)
              : fmt::format("{}: wrong passphrase: it opens none of the {} "
                            "keyslots in use",
                            layer, slots.size()));
}

LuksInfo Describe(const LocatedHeader& located, const std::string& place) {
  const Luks1Header& header = located.header;
  LuksInfo info;
  info.version = 1;
  info.place = place;
  info.header_file = located.file_name;
  info.header_offset = located.offset;
  info.uuid = header.uuid;
  info.cipher = header.cipher_name;
  info.mode = header.cipher_mode;
  info.hash = header.hash_spec;
  info.key_bits = header.key_bytes * 8;
  info.payload_offset = header.payload_offset * kSectorSize;
  for (unsigned i = 0; i < kLuks1Keyslots; ++i) {
    const Luks1Keyslot& slot = header.keyslots[i];
    info.keyslots.push_back(
        {.index = i,
         .active = slot.active,
         .iterations = slot.iterations,
         .stripes = slot.stripes,
         .key_material_offset = slot.key_material_offset * kSectorSize});
  }
  return info;
}

}  // namespace pellucid::luks
