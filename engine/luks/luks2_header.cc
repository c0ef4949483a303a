#include "engine/luks/luks2_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "crypto/hash.h"
#include "crypto/random_bytes.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/big_endian.h"
#include "engine/errors.h"

namespace pellucid::luks {
namespace {

constexpr uint64_t kSmallestHeader = 16 << 10;
constexpr uint64_t kLargestHeader = 4 << 20;
constexpr std::array kFirstMagic = {'L', 'U', 'K', 'S', '\xba', '\xbe'};
constexpr std::array kSecondMagic = {'S', 'K', 'U', 'L', '\xba', '\xbe'};

// Byte offsets of the binary header's fields.
enum At : size_t {
  kMagic = 0,
  kVersion = 6,
  kHdrSize = 8,
  kSeqid = 16,
  kLabel = 24,
  kChecksumAlg = 72,
  kSalt = 104,
  kUuid = 168,
  kSubsystem = 208,
  kHdrOffset = 256,
  kChecksum = 448,
};
constexpr size_t kChecksumBytes = 64;
constexpr size_t kSaltBytes = 64;

bool IsHeaderSize(uint64_t size) {
  return size >= kSmallestHeader && size <= kLargestHeader &&
         (size & (size - 1)) == 0;
}

std::string Text(std::span<const std::byte> bytes, size_t at, size_t size) {
  std::string text;
  for (const std::byte b : bytes.subspan(at, size)) {
    const auto c = std::to_integer<char>(b);
    if (c == 0) break;
    text += c >= ' ' && c <= '~' ? c : '?';  // Ends on a terminal.
  }
  return text;
}

class CopyReader {
 public:
  CopyReader(BlockDevice& device, uint64_t offset, uint64_t area_bytes)
      : device_(device), offset_(offset), area_bytes_(area_bytes) {}

  // The copy at `at` from the header's start, or why it is not valid.
  std::optional<Luks2Binary> Read(uint64_t at, std::string& why) {
    why.clear();
    std::vector<std::byte> bytes;
    const auto& magic = at == 0 ? kFirstMagic : kSecondMagic;
    // There is no copy at most places where one could be: that costs little.
    if (!Load(at, magic.size(), bytes)) {
      why = fmt::format("cut off at byte {}", offset_ + area_bytes_);
      return std::nullopt;
    }
    if (std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) {
      why = fmt::format("no magic at byte {}", offset_ + at + kMagic);
      return std::nullopt;
    }
    if (!Load(at, kLuks2BinaryBytes, bytes)) {
      why = fmt::format("cut off at byte {}", offset_ + area_bytes_);
      return std::nullopt;
    }
    const auto version = LoadBigEndian<uint16_t>(bytes, kVersion);
    if (version != 2) {
      why = fmt::format("version (byte {}) is {}", offset_ + at + kVersion,
                        version);
      return std::nullopt;
    }
    Luks2Binary copy;
    copy.hdr_size = LoadBigEndian<uint64_t>(bytes, kHdrSize);
    copy.seqid = LoadBigEndian<uint64_t>(bytes, kSeqid);
    copy.hdr_offset = LoadBigEndian<uint64_t>(bytes, kHdrOffset);
    if (!IsHeaderSize(copy.hdr_size)) {
      why = fmt::format("hdr_size (byte {}) is {}", offset_ + at + kHdrSize,
                        copy.hdr_size);
      return std::nullopt;
    }
    if (copy.hdr_offset != at || (at != 0 && copy.hdr_size != at)) {
      why = fmt::format("hdr_offset (byte {}) is {}, not {}",
                        offset_ + at + kHdrOffset, copy.hdr_offset, at);
      return std::nullopt;
    }
    if (!Load(at, copy.hdr_size, bytes)) {
      why = fmt::format("cut off at byte {}", offset_ + area_bytes_);
      return std::nullopt;
    }
    if (!ChecksumIsRight(bytes)) {
      why = fmt::format("the checksum (byte {}) does not fit",
                        offset_ + at + kChecksum);
      return std::nullopt;
    }
    copy.stored.assign(bytes.begin(), bytes.begin() + kLuks2BinaryBytes);
    copy.label = Text(bytes, kLabel, 48);
    copy.uuid = Text(bytes, kUuid, 40);
    copy.subsystem = Text(bytes, kSubsystem, 48);
    const char* json =
        reinterpret_cast<const char*>(bytes.data()) + kLuks2BinaryBytes;
    copy.json.assign(json, strnlen(json, copy.hdr_size - kLuks2BinaryBytes));
    return copy;
  }

 private:
  bool Load(uint64_t at, uint64_t size, std::vector<std::byte>& bytes) {
    if (at > area_bytes_ || size > area_bytes_ - at) return false;
    bytes.resize(size);
    device_.Read(offset_ + at, bytes);
    return true;
  }

  // Over the whole copy with the field itself as zeros. Wipes the field.
  static bool ChecksumIsRight(std::span<std::byte> bytes) {
    std::unique_ptr<crypto::Hasher> hasher;
    try {
      hasher = crypto::MakeHasher(Text(bytes, kChecksumAlg, 32));
    } catch (const crypto::UnsupportedAlgorithm&) {
      return false;
    }
    std::array<std::byte, kChecksumBytes> stored;
    const std::span field = bytes.subspan(kChecksum, kChecksumBytes);
    std::ranges::copy(field, stored.begin());
    std::ranges::fill(field, std::byte{0});
    hasher->Update(bytes);
    if (hasher->digest_size() > stored.size()) return false;
    std::array<std::byte, kChecksumBytes> computed{};
    hasher->Final(std::span(computed).first(hasher->digest_size()));
    return std::equal(
        stored.begin(),
        stored.begin() + static_cast<ptrdiff_t>(hasher->digest_size()),
        computed.begin());
  }

  BlockDevice& device_;
  const uint64_t offset_;
  const uint64_t area_bytes_;
};

}  // namespace

Luks2Copies ReadLuks2Copies(BlockDevice& device, uint64_t offset,
                            uint64_t area_bytes, const std::string& file_name) {
  CopyReader reader(device, offset, area_bytes);
  std::string first_trouble, second_trouble;
  std::optional<Luks2Binary> first = reader.Read(0, first_trouble);
  std::optional<Luks2Binary> second;
  if (first) {
    second = reader.Read(first->hdr_size, second_trouble);
  } else {
    for (uint64_t at = kSmallestHeader; at <= kLargestHeader && !second;
         at *= 2) {
      second = reader.Read(at, second_trouble);
    }
  }
  if (!first && !second) {
    throw CorruptImage(
        fmt::format("{}: both copies of the LUKS2 header are damaged: the "
                    "first: {}; the second: not found. A header backup can be "
                    "named with --header",
                    file_name, first_trouble));
  }
  Luks2Copies copies;
  const auto warn = [&](const char* which, const std::string& trouble) {
    copies.warnings.push_back(fmt::format(
        "{}: the {} copy of the LUKS2 header is damaged ({}); the other one is "
        "used",
        file_name, which, trouble));
  };
  if (!first) warn("first", first_trouble);
  if (!second) warn("second", second_trouble);
  if (first && second && first->seqid == second->seqid &&
      first->json != second->json) {
    copies.same_metadata = false;
    copies.warnings.push_back(fmt::format(
        "{}: the two copies of the LUKS2 header are equally old (seqid {}) but "
        "their metadata differs; the first one is used",
        file_name, first->seqid));
  }
  if (first && second && first->seqid != second->seqid) {
    copies.warnings.push_back(fmt::format(
        "{}: the two copies of the LUKS2 header differ in age (seqid {} and "
        "{}); the newer one is used",
        file_name, first->seqid, second->seqid));
  }
  if (first) copies.first_seqid = first->seqid;
  if (second) copies.second_seqid = second->seqid;
  const bool take_first = first && (!second || first->seqid >= second->seqid);
  copies.newest = std::move(take_first ? *first : *second);
  return copies;
}

std::vector<std::byte> EncodeLuks2Copy(const Luks2Binary& copy) {
  // The text ends with a NUL.
  if (copy.json.size() >= copy.hdr_size - kLuks2BinaryBytes) {
    throw UsageError(fmt::format(
        "the LUKS2 metadata takes {} bytes and the header has room for {}; "
        "remove keyslots or tokens",
        copy.json.size() + 1, copy.hdr_size - kLuks2BinaryBytes));
  }
  std::vector<std::byte> bytes(copy.hdr_size);
  std::ranges::copy(copy.stored, bytes.begin());
  const auto& magic = copy.hdr_offset == 0 ? kFirstMagic : kSecondMagic;
  std::memcpy(bytes.data() + kMagic, magic.data(), magic.size());
  StoreBigEndian(bytes, kHdrSize, copy.hdr_size);
  StoreBigEndian(bytes, kSeqid, copy.seqid);
  StoreBigEndian(bytes, kHdrOffset, copy.hdr_offset);
  crypto::FillRandom(std::span(bytes).subspan(kSalt, kSaltBytes));
  std::memcpy(bytes.data() + kLuks2BinaryBytes, copy.json.data(),
              copy.json.size());
  const auto hasher = crypto::MakeHasher(Text(bytes, kChecksumAlg, 32));
  hasher->Update(bytes);
  hasher->Final(std::span(bytes).subspan(kChecksum, hasher->digest_size()));
  return bytes;
}

Luks2Binary NewLuks2Binary(uint64_t hdr_size, const std::string& uuid,
                           const std::string& label) {
  Luks2Binary binary;
  binary.hdr_size = hdr_size;
  binary.seqid = 1;
  binary.uuid = uuid;
  binary.label = label;
  binary.stored.resize(kLuks2BinaryBytes);
  const auto store = [&](const std::string& text, size_t at) {
    std::memcpy(binary.stored.data() + at, text.data(), text.size());
  };
  StoreBigEndian(binary.stored, kVersion, uint16_t{2});
  store(label, kLabel);
  store("sha256", kChecksumAlg);
  store(uuid, kUuid);
  return binary;
}

bool HasSecondLuks2Copy(BlockDevice& device) {
  CopyReader reader(device, 0, device.size());
  std::string ignored;
  for (uint64_t at = kSmallestHeader; at <= kLargestHeader; at *= 2) {
    if (reader.Read(at, ignored)) return true;
  }
  return false;
}

}  // namespace pellucid::luks
