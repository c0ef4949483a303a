#include "engine/luks/luks1_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/big_endian.h"
#include "engine/errors.h"

namespace pellucid::luks {
namespace {

constexpr std::array kMagic = {std::byte{'L'},  std::byte{'U'},
                               std::byte{'K'},  std::byte{'S'},
                               std::byte{0xba}, std::byte{0xbe}};
constexpr uint32_t kActive = 0x00ac71f3;
constexpr uint32_t kInactive = 0x0000dead;
constexpr uint32_t kMaxKeyBytes = 512;
constexpr uint32_t kFirstKeyslotSector = 2;

// Byte offsets of the partition header's fields.
enum At : size_t {
  kVersion = 6,
  kCipherName = 8,
  kCipherMode = 40,
  kHashSpec = 72,
  kPayloadOffset = 104,
  kKeyBytes = 108,
  kMkDigest = 112,
  kMkDigestSalt = 132,
  kMkDigestIterations = 164,
  kUuid = 168,
  kKeyslots = 208,
};
// And of a key slot's.
enum AtKeyslot : size_t {
  kSlotActive = 0,
  kSlotIterations = 4,
  kSlotSalt = 8,
  kSlotKeyMaterialOffset = 40,
  kSlotStripes = 44,
  kKeyslotBytes = kLuks1KeyslotBytes,
};

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const Luks1Place& place)
      : bytes_(bytes), place_(place) {}

  Luks1Header Parse() {
    if (bytes_.size() < kLuks1HeaderBytes) {
      throw CorruptImage(fmt::format(
          "{}: the LUKS header at byte {} is cut off: {} bytes of {}",
          place_.file_name, place_.offset, bytes_.size(), kLuks1HeaderBytes));
    }
    header_.cipher_name = Text("cipher-name", kCipherName, 32);
    header_.cipher_mode = Text("cipher-mode", kCipherMode, 32);
    header_.hash_spec = Text("hash-spec", kHashSpec, 32);
    header_.payload_offset = Number(kPayloadOffset);
    header_.key_bytes = Number(kKeyBytes);
    Copy(kMkDigest, header_.mk_digest);
    Copy(kMkDigestSalt, header_.mk_digest_salt);
    header_.mk_digest_iterations = Number(kMkDigestIterations);
    header_.uuid = Text("uuid", kUuid, 40);
    for (size_t i = 0; i < kLuks1Keyslots; ++i) ParseKeyslot(i);

    if (header_.key_bytes == 0 || header_.key_bytes > kMaxKeyBytes) {
      Corrupt("key-bytes", kKeyBytes,
              fmt::format("is {}, not within 1 to {}", header_.key_bytes,
                          kMaxKeyBytes));
    }
    if (header_.mk_digest_iterations == 0) {
      Corrupt("mk-digest-iter", kMkDigestIterations, "is 0");
    }
    for (size_t i = 0; i < kLuks1Keyslots; ++i) CheckKeyslot(i);
    CheckOverlaps();
    return header_;
  }

 private:
  [[noreturn]] void Corrupt(const std::string& field, size_t byte,
                            const std::string& why) const {
    throw CorruptImage(fmt::format("{}: LUKS header field {} (byte {}) {}",
                                   place_.file_name, field,
                                   place_.offset + byte, why));
  }

  uint32_t Number(size_t at) const {
    return LoadBigEndian<uint32_t>(bytes_, at);
  }

  void Copy(size_t at, std::span<std::byte> to) const {
    std::ranges::copy(bytes_.subspan(at, to.size()), to.begin());
  }

  // A text of printable ASCII that ends with a NUL or the field.
  std::string Text(const char* field, size_t at, size_t size) const {
    std::string text;
    for (const std::byte b : bytes_.subspan(at, size)) {
      const auto c = std::to_integer<char>(b);
      if (c == 0) return text;
      if (c < ' ' || c > '~') Corrupt(field, at, "is not ASCII text");
      text += c;
    }
    return text;
  }

  static size_t KeyslotByte(size_t index, AtKeyslot field) {
    return kKeyslots + index * kKeyslotBytes + field;
  }

  [[noreturn]] void CorruptKeyslot(size_t index, const char* field,
                                   AtKeyslot at, const std::string& why) const {
    Corrupt(fmt::format("{} of keyslot {}", field, index),
            KeyslotByte(index, at), why);
  }

  void ParseKeyslot(size_t index) {
    Luks1Keyslot& slot = header_.keyslots[index];
    const uint32_t active = Number(KeyslotByte(index, kSlotActive));
    if (active != kActive && active != kInactive) {
      CorruptKeyslot(index, "active", kSlotActive,
                     fmt::format("is {:#010x}, neither {:#010x} nor {:#010x}",
                                 active, kActive, kInactive));
    }
    slot.active = active == kActive;
    slot.iterations = Number(KeyslotByte(index, kSlotIterations));
    Copy(KeyslotByte(index, kSlotSalt), slot.salt);
    slot.key_material_offset =
        Number(KeyslotByte(index, kSlotKeyMaterialOffset));
    slot.stripes = Number(KeyslotByte(index, kSlotStripes));
  }

  void CheckKeyslot(size_t index) const {
    const Luks1Keyslot& slot = header_.keyslots[index];
    if (slot.stripes != kLuks1Stripes) {
      CorruptKeyslot(index, "stripes", kSlotStripes,
                     fmt::format("is {}, not {}", slot.stripes, kLuks1Stripes));
    }
    if (slot.active && slot.iterations == 0) {
      CorruptKeyslot(index, "iterations", kSlotIterations, "is 0");
    }
    const uint64_t begin = slot.key_material_offset * kSectorSize;
    const uint64_t end = begin + header_.key_material_bytes();
    const auto bad = [&](const std::string& why) {
      CorruptKeyslot(
          index, "key-material-offset", kSlotKeyMaterialOffset,
          fmt::format("is sector {}: {}", slot.key_material_offset, why));
    };
    if (slot.key_material_offset < kFirstKeyslotSector) {
      bad("the key material overlaps the header");
    }
    if (slot.active && end > place_.area_bytes) {
      bad(
          fmt::format("the key material ends {} bytes from the header's start, "
                      "where only {} are",
                      end, place_.area_bytes));
    }
    if (place_.payload_follows && end > header_.payload_offset * kSectorSize) {
      bad(
          fmt::format("the key material runs into the payload, which begins "
                      "at sector {} (field payload-offset, byte {})",
                      header_.payload_offset, place_.offset + kPayloadOffset));
    }
  }

  void CheckOverlaps() const {
    const uint64_t length = header_.key_material_bytes() / kSectorSize;
    for (size_t i = 0; i < kLuks1Keyslots; ++i) {
      for (size_t j = i + 1; j < kLuks1Keyslots; ++j) {
        const uint64_t a = header_.keyslots[i].key_material_offset;
        const uint64_t b = header_.keyslots[j].key_material_offset;
        if (a < b + length && b < a + length) {
          CorruptKeyslot(j, "key-material-offset", kSlotKeyMaterialOffset,
                         fmt::format("is sector {}: the key material overlaps "
                                     "that of keyslot {}",
                                     b, i));
        }
      }
    }
  }

  const std::span<const std::byte> bytes_;
  const Luks1Place& place_;
  Luks1Header header_;
};

}  // namespace

std::optional<unsigned> LuksVersion(std::span<const std::byte> start) {
  if (start.size() < 8) return std::nullopt;
  if (!std::equal(kMagic.begin(), kMagic.end(), start.begin())) {
    return std::nullopt;
  }
  return LoadBigEndian<uint16_t>(start, 6);
}

uint64_t Luks1Header::key_material_bytes() const {
  const uint64_t bytes = uint64_t{key_bytes} * kLuks1Stripes;
  return (bytes + kSectorSize - 1) / kSectorSize * kSectorSize;
}

uint64_t Luks1KeyslotByte(unsigned keyslot) {
  return kKeyslots + uint64_t{keyslot} * kKeyslotBytes;
}

std::array<std::byte, kLuks1KeyslotBytes> EncodeLuks1Keyslot(
    const Luks1Keyslot& slot) {
  std::array<std::byte, kLuks1KeyslotBytes> bytes{};
  StoreBigEndian(bytes, kSlotActive, slot.active ? kActive : kInactive);
  StoreBigEndian(bytes, kSlotIterations, slot.iterations);
  std::ranges::copy(slot.salt, bytes.begin() + kSlotSalt);
  StoreBigEndian(bytes, kSlotKeyMaterialOffset, slot.key_material_offset);
  StoreBigEndian(bytes, kSlotStripes, slot.stripes);
  return bytes;
}

std::array<std::byte, kLuks1HeaderBytes> EncodeLuks1Header(
    const Luks1Header& header) {
  std::array<std::byte, kLuks1HeaderBytes> bytes{};
  const auto copy = [&](const auto& from, size_t at) {
    std::ranges::copy(std::as_bytes(std::span(from)),
                      bytes.begin() + static_cast<ptrdiff_t>(at));
  };
  copy(kMagic, 0);
  StoreBigEndian(bytes, kVersion, uint16_t{1});
  copy(header.cipher_name, kCipherName);
  copy(header.cipher_mode, kCipherMode);
  copy(header.hash_spec, kHashSpec);
  StoreBigEndian(bytes, kPayloadOffset, header.payload_offset);
  StoreBigEndian(bytes, kKeyBytes, header.key_bytes);
  copy(header.mk_digest, kMkDigest);
  copy(header.mk_digest_salt, kMkDigestSalt);
  StoreBigEndian(bytes, kMkDigestIterations, header.mk_digest_iterations);
  copy(header.uuid, kUuid);
  for (unsigned i = 0; i < kLuks1Keyslots; ++i) {
    copy(EncodeLuks1Keyslot(header.keyslots[i]), Luks1KeyslotByte(i));
  }
  return bytes;
}

VolumeHeader ToVolumeHeader(const Luks1Header& header) {
  const Encryption encryption = {.cipher = header.cipher_name,
                                 .mode = header.cipher_mode};
  const auto pbkdf2 = [&](std::span<const std::byte> salt,
                          uint32_t iterations) {
    Kdf kdf;
    kdf.salt.assign(salt.begin(), salt.end());
    kdf.hash = header.hash_spec;
    kdf.iterations = iterations;
    return kdf;
  };
  VolumeHeader volume;
  volume.version = 1;
  volume.uuid = header.uuid;
  Digest digest;
  digest.kdf = pbkdf2(header.mk_digest_salt, header.mk_digest_iterations);
  digest.value.assign(header.mk_digest.begin(), header.mk_digest.end());
  digest.segments = {0};
  for (unsigned i = 0; i < kLuks1Keyslots; ++i) {
    const Luks1Keyslot& slot = header.keyslots[i];
    if (!slot.active) continue;
    Keyslot keyslot;
    keyslot.id = i;
    keyslot.key_size = header.key_bytes;
    keyslot.kdf = pbkdf2(slot.salt, slot.iterations);
    keyslot.af_hash = header.hash_spec;
    keyslot.stripes = slot.stripes;
    keyslot.area_offset = slot.key_material_offset * kSectorSize;
    keyslot.area_size = header.key_material_bytes();
    keyslot.area_encryption = encryption;
    keyslot.area_key_size = header.key_bytes;
    volume.keyslots.push_back(keyslot);
    digest.keyslots.push_back(i);
  }
  volume.digests.push_back(digest);
  volume.segments.push_back({.id = 0,
                             .offset = header.payload_offset * kSectorSize,
                             .size = std::nullopt,
                             .encryption = encryption,
                             .iv_tweak = 0});
  return volume;
}

Luks1Header ParseLuks1Header(std::span<const std::byte> bytes,
                             const Luks1Place& place) {
  return Parser(bytes, place).Parse();
}

}  // namespace pellucid::luks
