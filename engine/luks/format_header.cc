#include "engine/luks/format_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <vector>

#include "crypto/hash.h"
#include "crypto/random_bytes.h"
#include "crypto/sector_cipher.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"
#include "engine/luks/key_material.h"
#include "engine/luks/luks1_header.h"
#include "engine/luks/luks2_header.h"
#include "engine/luks/luks2_json.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

constexpr uint64_t kAreaAlignment = 4096;
constexpr uint64_t kLuks1PayloadAlignment = 2 << 20;
constexpr uint64_t kLuks2HdrSize = 16 << 10;
constexpr uint64_t kLuks2HeaderBytes = 16 << 20;
constexpr uint32_t kMaxKeyBytes = 512;
constexpr size_t kUuidLength = 36;

constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

uint64_t AreaBytes(const FormatOptions& options) {
  return RoundUp(uint64_t{options.key_bytes} * kLuks1Stripes, kAreaAlignment);
}

// A random UUID (RFC 9562, version 4).
std::string NewUuid() {
  std::array<std::byte, 16> bytes;
  crypto::FillRandom(bytes);
  bytes[6] = (bytes[6] & std::byte{0x0f}) | std::byte{0x40};
  bytes[8] = (bytes[8] & std::byte{0x3f}) | std::byte{0x80};
  std::string uuid;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) uuid += '-';
    uuid += fmt::format("{:02x}", std::to_integer<unsigned>(bytes[i]));
  }
  return uuid;
}

void CheckUuid(std::string_view uuid) {
  bool good = uuid.size() == kUuidLength;
  for (size_t i = 0; good && i < uuid.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    good = dash ? uuid[i] == '-'
                : std::isxdigit(static_cast<unsigned char>(uuid[i])) != 0;
  }
  if (good) return;
  throw UsageError(fmt::format(
      "\"{}\" is not a UUID, such as 6f1f7c0e-93f4-4c1b-8e6a-1d7a0f3b2c5d",
      uuid));
}

void CheckLabel(const FormatOptions& options) {
  const std::string& label = options.label;
  if (options.version == 1 && !label.empty()) {
    throw UsageError("LUKS1 has no room for a label; LUKS2 has");
  }
  if (label.size() >= kLuks2LabelBytes) {
    throw UsageError(fmt::format("the label has {} bytes and LUKS2 takes {}",
                                 label.size(), kLuks2LabelBytes - 1));
  }
  for (const char c : label) {
    if (c < ' ' || c > '~') {
      throw UsageError("the label has characters that are not printable ASCII");
    }
  }
}

// Makes each algorithm once.
void CheckAlgorithms(const FormatOptions& options) {
  if (options.key_bytes == 0 || options.key_bytes > kMaxKeyBytes) {
    throw UsageError(fmt::format("a key of {} bytes is not within 1 to {}",
                                 options.key_bytes, kMaxKeyBytes));
  }
  try {
    const std::vector<std::byte> any_key(options.key_bytes);
    crypto::MakeSectorCipher(
        crypto::ParseCipherSpec(options.cipher, options.mode), any_key,
        options.sector_size);
    crypto::DigestSize(options.hash);
  } catch (const crypto::UnsupportedAlgorithm& e) {
    throw Unsupported(e.what());
  }
}

void CheckVersion(const FormatOptions& options) {
  if (options.version != 1 && options.version != 2) {
    throw UsageError(fmt::format(
        "there is no LUKS{}; there are LUKS1 and LUKS2", options.version));
  }
  const uint32_t sector = options.sector_size;
  if (sector < 512 || sector > 4096 || (sector & (sector - 1)) != 0) {
    throw UsageError(fmt::format(
        "a sector size of {} is not 512, 1024, 2048 or 4096", sector));
  }
  if (options.version == 2) {
    if (options.layout == Layout::kEmbedded) {
      throw UsageError("only LUKS1 can be embedded in qcow2");
    }
    return;
  }
  if (sector != kSectorSize) {
    throw UsageError("LUKS1 has sectors of 512 bytes; LUKS2 has larger ones");
  }
  if (options.kdf.type != "pbkdf2") {
    throw UsageError(fmt::format("LUKS1 has pbkdf2, not {}; LUKS2 has it",
                                 options.kdf.type));
  }
  for (const std::string* text :
       {&options.cipher, &options.mode, &options.hash}) {
    if (text->size() < kLuks1TextBytes) continue;
    throw UsageError(fmt::format("\"{}\" is too long for LUKS1", *text));
  }
}

// Zeros wherever something else is, so that holes stay holes.
void Clear(WritableDevice& device, uint64_t size) {
  constexpr size_t kPiece = 64 << 10;
  std::vector<std::byte> bytes(kPiece);
  const std::vector<std::byte> zeros(kPiece);
  for (uint64_t at = 0; at < size; at += kPiece) {
    const std::span piece =
        std::span(bytes).first(std::min<uint64_t>(kPiece, size - at));
    device.Read(at, piece);
    if (std::ranges::equal(piece, std::span(zeros).first(piece.size()))) {
      continue;
    }
    device.Write(at, std::span(zeros).first(piece.size()));
  }
}

SecretBytes NewVolumeKey(const FormatOptions& options) {
  SecretBytes key(options.key_bytes);
  crypto::FillRandom(key.bytes());
  return key;
}

// The header that `options` describe, LUKS1 or LUKS2, with one keyslot.
VolumeHeader Plan(const FormatOptions& options, const SecretBytes& key) {
  const Encryption encryption = {.cipher = options.cipher,
                                 .mode = options.mode,
                                 .sector_size = options.sector_size};
  VolumeHeader header;
  header.version = options.version;
  header.uuid = options.uuid.empty() ? NewUuid() : options.uuid;
  Keyslot slot;
  slot.key_size = options.key_bytes;
  slot.af_hash = options.hash;
  slot.stripes = kLuks1Stripes;
  slot.area_size = AreaBytes(options);
  KdfCost cost = options.kdf;
  if (options.version == 1) {
    cost.hash = options.hash;
    slot.area_offset = kAreaAlignment;
    slot.area_encryption = encryption;
    slot.area_key_size = options.key_bytes;
  } else {
    // As cryptsetup has it, whatever the volume's cipher is.
    slot.area_offset = 2 * kLuks2HdrSize;
    slot.area_encryption = {.cipher = "aes", .mode = "xts-plain64"};
    slot.area_key_size = 64;
  }
  slot.kdf = NewKdf(cost, slot.area_key_size);
  Digest digest;
  digest.kdf = NewDigestKdf(options.hash, cost);
  digest.value.resize(options.version == 1 ? kLuks1DigestBytes
                                           : crypto::DigestSize(options.hash));
  Derive(digest.kdf, key.bytes(), digest.value);
  digest.keyslots = {slot.id};
  digest.segments = {0};
  header.keyslots = {slot};
  header.digests = {digest};
  header.segments = {
      {.id = 0,
       .offset = options.layout == Layout::kDetached ? 0 : HeaderBytes(options),
       .size = std::nullopt,
       .encryption = encryption,
       .iv_tweak = 0}};
  return header;
}

void WriteLuks1(WritableDevice& device, const FormatOptions& options,
                const VolumeHeader& plan) {
  const Kdf& kdf = plan.keyslots.front().kdf;
  const Digest& digest = plan.digests.front();
  Luks1Header header;
  header.cipher_name = options.cipher;
  header.cipher_mode = options.mode;
  header.hash_spec = options.hash;
  header.payload_offset =
      static_cast<uint32_t>(plan.segments.front().offset / kSectorSize);
  header.key_bytes = options.key_bytes;
  std::ranges::copy(digest.value, header.mk_digest.begin());
  std::ranges::copy(digest.kdf.salt, header.mk_digest_salt.begin());
  header.mk_digest_iterations = digest.kdf.iterations;
  header.uuid = plan.uuid;
  for (size_t i = 0; i < kLuks1Keyslots; ++i) {
    Luks1Keyslot& slot = header.keyslots[i];
    slot.key_material_offset = static_cast<uint32_t>(
        (kAreaAlignment + i * AreaBytes(options)) / kSectorSize);
    slot.stripes = kLuks1Stripes;
  }
  Luks1Keyslot& slot = header.keyslots.front();
  slot.active = true;
  slot.iterations = kdf.iterations;
  std::ranges::copy(kdf.salt, slot.salt.begin());
  device.Write(0, EncodeLuks1Header(header));
}

void WriteLuks2(WritableDevice& device, const FormatOptions& options,
                const VolumeHeader& plan) {
  Luks2Binary copy = NewLuks2Binary(kLuks2HdrSize, plan.uuid, options.label);
  copy.json = NewLuks2Metadata(plan, kLuks2HdrSize - kLuks2BinaryBytes,
                               kLuks2HeaderBytes - 2 * kLuks2HdrSize)
                  .dump();
  for (const uint64_t at : {uint64_t{0}, kLuks2HdrSize}) {
    copy.hdr_offset = at;
    device.Write(at, EncodeLuks2Copy(copy));
  }
}

}  // namespace

uint64_t HeaderBytes(const FormatOptions& options) {
  if (options.version != 1) return kLuks2HeaderBytes;
  const uint64_t keyslots_end =
      kAreaAlignment + kLuks1Keyslots * AreaBytes(options);
  return options.layout == Layout::kEmbedded
             ? keyslots_end
             : RoundUp(keyslots_end, kLuks1PayloadAlignment);
}

void CheckFormatOptions(const FormatOptions& options) {
  CheckVersion(options);
  CheckAlgorithms(options);
  KdfCost cost = options.kdf;
  if (options.version == 1) cost.hash = options.hash;
  CheckKdfCost(cost);
  if (!options.uuid.empty()) CheckUuid(options.uuid);
  CheckLabel(options);
}

SecretBytes FormatHeader(WritableDevice& device, const FormatOptions& options,
                         const SecretBytes& passphrase) {
  CheckFormatOptions(options);
  if (device.size() < HeaderBytes(options)) {
    throw UsageError(fmt::format(
        "a device of {} bytes is too small for a LUKS{} header of {} bytes",
        device.size(), options.version, HeaderBytes(options)));
  }
  SecretBytes key = NewVolumeKey(options);
  const VolumeHeader plan = Plan(options, key);
  const Keyslot& slot = plan.keyslots.front();
  const std::vector<std::byte> material =
      SealKeyMaterial(slot, key, passphrase);
  Clear(device, HeaderBytes(options));
  device.Write(slot.area_offset, material);
  device.Flush();
  if (options.version == 1) {
    WriteLuks1(device, options, plan);
  } else {
    WriteLuks2(device, options, plan);
  }
  device.Flush();
  return key;
}

}  // namespace pellucid::luks
