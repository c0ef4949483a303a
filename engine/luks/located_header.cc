#include "engine/luks/located_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "crypto/hash.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"
#include "engine/luks/luks1_header.h"
#include "engine/luks/luks2_header.h"
#include "engine/luks/luks2_metadata.h"
#include "engine/luks/weaknesses.h"

namespace pellucid::luks {
namespace {

// Makes every algorithm of the header once, so that a missing one is refused
// before a passphrase is typed and a key derived.
void CheckLuks1Algorithms(const Luks1Header& header, const Luks1Place& place) {
  const auto refuse = [&](const char* field, size_t byte,
                          const std::exception& why) {
    throw Unsupported(fmt::format("{}: LUKS header field {} (byte {}): {}",
                                  place.file_name, field, place.offset + byte,
                                  why.what()));
  };
  try {
    crypto::DigestSize(header.hash_spec);
  } catch (const crypto::UnsupportedAlgorithm& e) {
    refuse("hash-spec", 72, e);
  }
  try {
    const std::vector<std::byte> any_key(header.key_bytes);
    crypto::MakeSectorCipher(
        crypto::ParseCipherSpec(header.cipher_name, header.cipher_mode),
        any_key);
  } catch (const crypto::UnsupportedAlgorithm& e) {
    refuse("cipher-name or cipher-mode", 8, e);
  }
}

VolumeHeader ReadLuks1(std::span<const std::byte> bytes,
                       const Luks1Place& place) {
  const Luks1Header header = ParseLuks1Header(bytes, place);
  CheckLuks1Algorithms(header, place);
  return ToVolumeHeader(header);
}

VolumeHeader ReadLuks2(BlockDevice& device, uint64_t offset,
                       uint64_t area_bytes, const std::string& file_name,
                       Place place) {
  const Luks2Copies copies =
      ReadLuks2Copies(device, offset, area_bytes, file_name);
  const Luks2Binary& binary = copies.newest;
  VolumeHeader header = ParseLuks2Metadata(
      binary.json, {.file_name = file_name,
                    .json_offset = offset + binary.hdr_offset + 4096,
                    .header_bytes = 2 * binary.hdr_size,
                    .area_bytes = area_bytes,
                    .payload_follows = place == Place::kInPlace});
  header.uuid = binary.uuid;
  header.label = binary.label;
  header.subsystem = binary.subsystem;
  header.warnings = copies.warnings;
  return header;
}

// Where a disk or a file system says what it is.
using Beginning = std::array<std::byte, 4096>;

// Something that a stale second LUKS2 copy must not be preferred to.
bool HasOtherSignature(const Beginning& start, BlockDevice& device) {
  struct Signature {
    size_t byte;
    std::string_view magic;
  };
  constexpr std::array kSignatures = {
      Signature{510, "\x55\xaa"},     // MBR, FAT, NTFS
      Signature{512, "EFI PART"},     // GPT
      Signature{1080, "\x53\xef"},    // ext2, ext3, ext4
      Signature{0, "XFSB"},           // XFS
      Signature{536, "LVM2 001"},     // LVM
      Signature{4086, "SWAPSPACE2"},  // swap
  };
  const auto is_at = [](const Signature& signature,
                        std::span<const std::byte> in) {
    return std::ranges::equal(
        in.subspan(signature.byte, signature.magic.size()),
        std::as_bytes(std::span(signature.magic)));
  };
  const bool at_start = std::ranges::any_of(
      kSignatures,
      [&](const Signature& signature) { return is_at(signature, start); });
  if (at_start) return true;
  constexpr uint64_t kSuperblock = 0x10000;
  std::array<std::byte, 0x48> btrfs{};
  ReadZeroPadded(device, kSuperblock, btrfs);
  return is_at({0x40, "_BHRfS_M"}, btrfs);
}

std::string KdfText(const Kdf& kdf) {
  return kdf.type == "pbkdf2" ? kdf.type + "-" + kdf.hash : kdf.type;
}

}  // namespace

LocatedHeader ReadLuksHeader(BlockDevice& device, uint64_t offset,
                             uint64_t area_bytes, const std::string& file_name,
                             Place place) {
  std::array<std::byte, kLuks1HeaderBytes> bytes;
  const std::span there =
      std::span(bytes).first(std::min<uint64_t>(bytes.size(), area_bytes));
  device.Read(offset, there);
  LocatedHeader located;
  located.device = &device;
  located.offset = offset;
  located.file_name = file_name;
  const std::optional<unsigned> version = LuksVersion(there);
  if (!version && (place == Place::kEmbedded || !HasSecondLuks2Copy(device))) {
    throw CorruptImage(fmt::format(
        "{}: there is no LUKS header at byte {}: the magic is missing",
        file_name, offset));
  }
  if (version == 1) {
    located.header =
        ReadLuks1(there, {.file_name = file_name,
                          .offset = offset,
                          .area_bytes = area_bytes,
                          .payload_follows = place == Place::kInPlace});
  } else if (place != Place::kEmbedded && version.value_or(2) == 2) {
    located.header = ReadLuks2(device, offset, area_bytes, file_name, place);
  } else {
    throw Unsupported(fmt::format(
        "{}: LUKS header field version (byte {}) is {}; {}", file_name,
        offset + 6, version.value_or(2),
        place == Place::kEmbedded ? "only 1 can be embedded in qcow2"
                                  : "1 and 2 are supported"));
  }
  return located;
}

bool IsLuksVolume(BlockDevice& device) {
  Beginning start{};
  ReadZeroPadded(device, 0, start);
  if (LuksVersion(start)) return true;
  // Most disks have a signature at once; a second copy may be at nine places.
  return !HasOtherSignature(start, device) && HasSecondLuks2Copy(device);
}

void CheckPayload(const LocatedHeader& located, uint64_t payload_size,
                  const std::string& payload_name) {
  for (const Segment& segment : located.header.segments) {
    const bool fits = segment.size
                          ? segment.offset + *segment.size <= payload_size
                          : segment.offset < payload_size;
    if (fits) continue;
    const std::string field =
        located.header.version == 1
            ? fmt::format("header field payload-offset (byte {})",
                          located.offset + 104)
            : fmt::format("metadata field segments.{}", segment.id);
    throw CorruptImage(fmt::format(
        "{}: LUKS {} puts ciphertext at sector {}, behind the end of {} ({} "
        "bytes): the payload is cut off, or the header belongs to another "
        "volume or is a detached one (--header)",
        located.file_name, field,
        (segment.offset + segment.size.value_or(0)) / kSectorSize, payload_name,
        payload_size));
  }
}

uint64_t PlaintextBytes(const VolumeHeader& header, uint64_t payload_size) {
  uint64_t bytes = 0;
  for (const Segment& segment : header.segments) {
    bytes += segment.bytes(payload_size);
  }
  return bytes;
}

uint64_t CutBytes(const VolumeHeader& header, uint64_t payload_size) {
  const Segment& last = header.segments.back();
  if (last.size) return 0;
  return payload_size - last.offset - last.bytes(payload_size);
}

LuksInfo Describe(const LocatedHeader& located, Place place) {
  const VolumeHeader& header = located.header;
  LuksInfo info;
  info.version = header.version;
  info.place = place == Place::kInPlace    ? "in place"
               : place == Place::kDetached ? "detached"
                                           : "embedded";
  info.header_file = located.file_name;
  info.header_offset = located.offset;
  info.uuid = header.uuid;
  info.label = header.label;
  info.warnings = header.warnings;
  for (const Segment& segment : header.segments) {
    if (segment.encryption) {
      info.cipher = segment.encryption->cipher;
      info.mode = segment.encryption->mode;
      info.sector_size = segment.encryption->sector_size;
      break;
    }
  }
  info.payload_offset = header.segments.front().offset;
  if (!header.digests.empty()) info.hash = header.digests.front().kdf.hash;
  for (const Keyslot& slot : header.keyslots) {
    info.key_bits = slot.key_size * 8;
    info.keyslots.push_back({.index = slot.id,
                             .kdf = KdfText(slot.kdf),
                             .iterations = slot.kdf.iterations,
                             .time = slot.kdf.time,
                             .memory_kib = slot.kdf.memory_kib,
                             .cpus = slot.kdf.cpus,
                             .priority = static_cast<unsigned>(slot.priority),
                             .stripes = slot.stripes,
                             .key_material_offset = slot.area_offset});
  }
  for (const Token& token : header.tokens) {
    info.tokens.push_back(
        {.index = token.id, .type = token.type, .keyslots = token.keyslots});
  }
  for (std::string& weakness : WeaknessesOf(info)) {
    info.warnings.push_back(std::move(weakness));
  }
  return info;
}

}  // namespace pellucid::luks
