#include "engine/luks/luks2_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <concepts>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "crypto/base64.h"
#include "crypto/hash.h"
#include "crypto/unsupported_algorithm.h"
#include "engine/errors.h"
#include "engine/luks/kdf_cost.h"
#include "engine/luks/luks1_header.h"
#include "engine/luks/luks2_json.h"

namespace pellucid::luks {
namespace {

using nlohmann::json;

constexpr uint32_t kStripes = 4000;
constexpr uint32_t kMaxKeyBytes = 512;
constexpr size_t kMaxSaltBytes = 1024;
constexpr size_t kMaxObjects = 32;  // Keyslots, and so on; the format's.
constexpr size_t kMaxDepth = 32;    // json-c's, which cryptsetup reads with.

// A value of the JSON and the path that led there.
class Node {
 public:
  Node(const json& value, std::string path, const Luks2Area& area)
      : value_(&value), path_(std::move(path)), area_(&area) {}

  [[noreturn]] void Corrupt(const std::string& why) const {
    throw CorruptImage(Message(why));
  }
  [[noreturn]] void Refuse(const std::string& why) const {
    throw Unsupported(Message(why));
  }

  bool Has(const char* key) const {
    return value_->is_object() && value_->contains(key);
  }

  Node operator[](const std::string& key) const {
    if (!value_->is_object()) Corrupt("is not an object");
    const auto found = value_->find(key);
    const std::string path = path_.empty() ? key : path_ + "." + key;
    if (found == value_->end()) {
      Node(*value_, path, *area_).Corrupt("is missing");
    }
    return Node(*found, path, *area_);
  }

  std::string Text() const {
    if (!value_->is_string()) Corrupt("is not a string");
    std::string text = value_->get<std::string>();
    for (const char c : text) {
      if (c < ' ' || c > '~') Corrupt("is not ASCII text");
    }
    return text;
  }

  // A JSON number within [least, most].
  uint32_t Number(uint32_t least, uint32_t most) const {
    if (!value_->is_number_unsigned()) Corrupt("is not a whole number");
    const auto number = value_->get<uint64_t>();
    if (number < least || number > most) {
      Corrupt(fmt::format("is {}, not within {} to {}", number, least, most));
    }
    return static_cast<uint32_t>(number);
  }

  // A decimal number written as a string, as the format does for 64 bits.
  uint64_t Decimal() const {
    const std::string text = Text();
    uint64_t number = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) {
      Corrupt("is not a decimal number of 64 bits");
    }
    return number;
  }

  std::vector<std::byte> Base64() const {
    const auto bytes = crypto::DecodeBase64(Text());
    if (!bytes) Corrupt("is not base64");
    return *bytes;
  }

  std::string Hash() const {
    std::string name = Text();
    try {
      crypto::DigestSize(name);
    } catch (const crypto::UnsupportedAlgorithm& e) {
      Refuse(fmt::format("is not supported: {}", e.what()));
    }
    return name;
  }

  // The members of an object whose keys are numbers, in their order.
  std::vector<std::pair<unsigned, Node>> Numbered() const {
    if (!value_->is_object()) Corrupt("is not an object");
    if (value_->size() > kMaxObjects) {
      Corrupt(
          fmt::format("has {} members, above {}", value_->size(), kMaxObjects));
    }
    std::vector<std::pair<unsigned, Node>> members;
    for (const auto& [key, value] : value_->items()) {
      members.emplace_back(Id(key), (*this)[key]);
    }
    std::ranges::sort(members, {}, [](const auto& m) { return m.first; });
    return members;
  }

  // An array of such keys.
  std::vector<unsigned> Ids() const {
    std::vector<unsigned> ids;
    for (const std::string& text : Texts()) ids.push_back(Id(text));
    return ids;
  }

  std::vector<std::string> Texts() const {
    if (!value_->is_array()) Corrupt("is not an array");
    std::vector<std::string> texts;
    for (const json& element : *value_) {
      texts.push_back(Node(element, path_ + "[]", *area_).Text());
    }
    return texts;
  }

 private:
  unsigned Id(const std::string& text) const {
    unsigned id = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), id);
    // "01" would be a second name of "1".
    if (error != std::errc() || end != text.data() + text.size() ||
        id >= kMaxObjects || text != std::to_string(id)) {
      Corrupt(fmt::format("names an object that is not a number below {}",
                          kMaxObjects));
    }
    return id;
  }

  std::string Message(const std::string& why) const {
    return fmt::format("{}: LUKS2 metadata{}{} (in the JSON at byte {}) {}",
                       area_->file_name, path_.empty() ? "" : " field ", path_,
                       area_->json_offset, why);
  }

  const json* value_;
  std::string path_;
  const Luks2Area* area_;
};

Encryption ParseEncryption(const Node& node, uint32_t key_size,
                           size_t sector_size) {
  const std::string text = node.Text();
  const size_t dash = text.find('-');
  Encryption encryption;
  encryption.cipher = text.substr(0, dash);
  encryption.mode = dash == std::string::npos ? "" : text.substr(dash + 1);
  encryption.sector_size = sector_size;
  try {
    // Made once, so that what is missing is refused before a key is derived.
    if (key_size == 0) {
      encryption.Spec();
      return encryption;
    }
    const std::vector<std::byte> any_key(key_size);
    crypto::MakeSectorCipher(encryption.Spec(), any_key, sector_size);
  } catch (const crypto::UnsupportedAlgorithm& e) {
    node.Refuse(fmt::format("is not supported: {}", e.what()));
  }
  return encryption;
}

Kdf ParseKdf(const Node& node) {
  Kdf kdf;
  kdf.type = node["type"].Text();
  kdf.salt = node["salt"].Base64();
  if (kdf.salt.empty() || kdf.salt.size() > kMaxSaltBytes) {
    node["salt"].Corrupt(fmt::format("is {} bytes long, not within 1 to {}",
                                     kdf.salt.size(), kMaxSaltBytes));
  }
  if (kdf.type == "pbkdf2") {
    kdf.hash = node["hash"].Hash();
    kdf.iterations = node["iterations"].Number(1, UINT32_MAX);
    return kdf;
  }
  if (kdf.type != "argon2i" && kdf.type != "argon2id") {
    node["type"].Refuse(fmt::format(
        "is {}; supported are pbkdf2, argon2i and argon2id", kdf.type));
  }
  kdf.time = node["time"].Number(1, UINT32_MAX);
  kdf.memory_kib = node["memory"].Number(kMinArgon2KiB, kMaxArgon2KiB);
  kdf.cpus = node["cpus"].Number(1, kMaxArgon2Lanes);
  if (kdf.memory_kib < kMinArgon2KiB * kdf.cpus) {
    node["memory"].Corrupt(
        fmt::format("is {} KiB, below 8 KiB for each of {} cpus",
                    kdf.memory_kib, kdf.cpus));
  }
  if (uint64_t{kdf.time} * kdf.memory_kib > kMaxArgon2Work) {
    node["time"].Corrupt(
        fmt::format("is {} passes over {} KiB: that would take hours", kdf.time,
                    kdf.memory_kib));
  }
  if (kdf.salt.size() < 8) {
    node["salt"].Corrupt("is shorter than the 8 bytes that Argon2 takes");
  }
  return kdf;
}

Keyslot ParseKeyslot(unsigned id, const Node& node, const Luks2Area& area) {
  const std::string type = node["type"].Text();
  if (type == "reencrypt") {
    node.Refuse(
        "belongs to a reencryption in progress; finish it with `cryptsetup "
        "reencrypt --resume-only`");
  }
  if (type != "luks2") {
    node["type"].Refuse(fmt::format("is {}; only luks2 is supported", type));
  }
  Keyslot slot;
  slot.id = id;
  slot.key_size = node["key_size"].Number(1, kMaxKeyBytes);
  if (node.Has("priority")) {
    slot.priority = static_cast<Priority>(node["priority"].Number(0, 2));
  }
  slot.kdf = ParseKdf(node["kdf"]);
  const Node af = node["af"];
  if (af["type"].Text() != "luks1") af["type"].Refuse("is not luks1");
  slot.stripes = af["stripes"].Number(kStripes, kStripes);
  slot.af_hash = af["hash"].Hash();
  const Node raw = node["area"];
  if (raw["type"].Text() != "raw") raw["type"].Refuse("is not raw");
  slot.area_offset = raw["offset"].Decimal();
  slot.area_size = raw["size"].Decimal();
  slot.area_key_size = raw["key_size"].Number(1, kMaxKeyBytes);
  slot.area_encryption =
      ParseEncryption(raw["encryption"], slot.area_key_size, kSectorSize);
  if (slot.area_size < slot.split_bytes()) {
    raw["size"].Corrupt(
        fmt::format("is {}, below the {} bytes of the key's {} "
                    "stripes",
                    slot.area_size, slot.split_bytes(), slot.stripes));
  }
  if (slot.area_offset < area.header_bytes ||
      slot.area_offset > area.area_bytes ||
      slot.area_size > area.area_bytes - slot.area_offset) {
    raw["offset"].Corrupt(fmt::format(
        "is {} for {} bytes; keyslots have the bytes from {} to {}",
        slot.area_offset, slot.area_size, area.header_bytes, area.area_bytes));
  }
  return slot;
}

Digest ParseDigest(unsigned id, const Node& node) {
  Digest digest;
  digest.id = id;
  if (node["type"].Text() != "pbkdf2") {
    node["type"].Refuse("is not pbkdf2, the only digest that is supported");
  }
  digest.kdf = ParseKdf(node);
  digest.value = node["digest"].Base64();
  // A digest that is empty or cut would let any passphrase in.
  const size_t whole = crypto::DigestSize(digest.kdf.hash);
  // Volumes converted from LUKS1 keep its shorter digest.
  if (digest.value.size() != whole &&
      digest.value.size() != kLuks1DigestBytes) {
    node["digest"].Corrupt(fmt::format("is {} bytes long; {} has {}",
                                       digest.value.size(), digest.kdf.hash,
                                       whole));
  }
  digest.keyslots = node["keyslots"].Ids();
  digest.segments = node["segments"].Ids();
  return digest;
}

Segment ParseSegment(unsigned id, const Node& node, uint32_t key_size) {
  const std::string type = node["type"].Text();
  Segment segment;
  segment.id = id;
  segment.offset = node["offset"].Decimal();
  if (node["size"].Text() != "dynamic") segment.size = node["size"].Decimal();
  if (node.Has("integrity")) {
    node["integrity"].Refuse(
        "asks for authenticated encryption, which is not supported");
  }
  if (type == "crypt") {
    const uint32_t sector_size = node["sector_size"].Number(512, 4096);
    if ((sector_size & (sector_size - 1)) != 0) {
      node["sector_size"].Corrupt(
          fmt::format("is {}, not a power of two", sector_size));
    }
    segment.iv_tweak = node["iv_tweak"].Decimal();
    segment.encryption =
        ParseEncryption(node["encryption"], key_size, sector_size);
  } else if (type != "linear") {
    // hw-opal, hw-opal-crypt and what may come.
    node["type"].Refuse(
        fmt::format("is {}; supported are crypt and linear", type));
  }
  const uint64_t unit = segment.sector_size();
  if (segment.offset % kSectorSize != 0) {
    node["offset"].Corrupt("is not a multiple of 512");
  }
  if (segment.size && (*segment.size == 0 || *segment.size % unit != 0 ||
                       *segment.size > UINT64_MAX - segment.offset)) {
    node["size"].Corrupt(fmt::format("is not a positive multiple of {}", unit));
  }
  return segment;
}

class MetadataParser {
 public:
  MetadataParser(const json& document, const Luks2Area& area)
      : root_(document, "", area), area_(area) {}

  VolumeHeader Parse() {
    header_.version = 2;
    CheckRequirements();
    for (const auto& [id, node] : root_["keyslots"].Numbered()) {
      header_.keyslots.push_back(ParseKeyslot(id, node, area_));
    }
    for (const auto& [id, node] : root_["digests"].Numbered()) {
      header_.digests.push_back(ParseDigest(id, node));
    }
    for (const auto& [id, node] : root_["segments"].Numbered())
      AddSegment(id, node);
    CheckSegments();
    CheckAreas();
    CheckAreasAgainstPayload();
    for (const auto& [id, node] : root_["tokens"].Numbered()) {
      header_.tokens.push_back({.id = id,
                                .type = node["type"].Text(),
                                .keyslots = node["keyslots"].Ids()});
    }
    return std::move(header_);
  }

 private:
  // config.requirements.mandatory: who does not know one must not touch.
  void CheckRequirements() {
    const Node config = root_["config"];
    if (!config.Has("requirements")) return;
    const Node requirements = config["requirements"];
    if (!requirements.Has("mandatory")) return;
    std::string names;
    for (const std::string& name : requirements["mandatory"].Texts()) {
      names += (names.empty() ? "" : ", ") + name;
    }
    if (!names.empty()) {
      requirements["mandatory"].Refuse(
          fmt::format("lists what is not supported: {}", names));
    }
  }

  // Key length for segment `id`: that of the keyslots whose digest covers it,
  // 0 if they have all been removed.
  uint32_t KeySizeOf(unsigned id, const Node& node) const {
    for (const Digest& digest : header_.digests) {
      if (std::ranges::find(digest.segments, id) == digest.segments.end()) {
        continue;
      }
      uint32_t key_size = 0;
      for (const Keyslot& slot : header_.keyslots) {
        if (!digest.covers_keyslot(slot.id)) continue;
        if (key_size != 0 && slot.key_size != key_size) {
          root_["keyslots"].Corrupt(fmt::format(
              "{}.key_size is {}, but other keyslots of the same key have {}",
              slot.id, slot.key_size, key_size));
        }
        key_size = slot.key_size;
      }
      if (key_size != 0 || digest.keyslots.empty()) return key_size;
    }
    node.Corrupt("is encrypted with a key that no keyslot holds");
  }

  void AddSegment(unsigned id, const Node& node) {
    if (node.Has("flags")) {
      for (const std::string& flag : node["flags"].Texts()) {
        if (flag.starts_with("backup-") || flag == "in-reencryption") {
          node["flags"].Refuse(fmt::format(
              "has {}: a reencryption is in progress; finish it with "
              "`cryptsetup reencrypt --resume-only`",
              flag));
        }
      }
    }
    const uint32_t key_size =
        node["type"].Text() == "crypt" ? KeySizeOf(id, node) : 0;
    header_.segments.push_back(ParseSegment(id, node, key_size));
  }

  void CheckSegments() const {
    const Node node = root_["segments"];
    if (header_.segments.empty()) node.Corrupt("is empty: there is no data");
    std::set<unsigned> digests;
    uint64_t total = 0;
    for (const Segment& segment : header_.segments) {
      // Sizes are signed 64-bit numbers wherever files have them.
      if (segment.size.value_or(0) > INT64_MAX - total) {
        node.Corrupt("are longer than 2^63 bytes together");
      }
      total += segment.size.value_or(0);
      if (!segment.size && &segment != &header_.segments.back()) {
        node.Corrupt(fmt::format("{}: a dynamic segment is not the last one",
                                 segment.id));
      }
      CheckOverlaps(segment, node);
      if (area_.payload_follows && segment.offset < area_.header_bytes) {
        node.Corrupt(
            fmt::format("{}.offset is {}, inside the {} bytes of the "
                        "header",
                        segment.id, segment.offset, area_.header_bytes));
      }
      if (!segment.encryption) continue;
      for (const Digest& digest : header_.digests) {
        if (std::ranges::find(digest.segments, segment.id) !=
            digest.segments.end()) {
          digests.insert(digest.id);
        }
      }
    }
    if (digests.size() > 1) {
      node.Refuse("are encrypted with more than one key");
    }
  }

  void CheckOverlaps(const Segment& segment, const Node& node) const {
    for (const Segment& other : header_.segments) {
      if (&other == &segment) continue;
      const auto ends_before = [](const Segment& a, const Segment& b) {
        return a.size && a.offset + *a.size <= b.offset;
      };
      if (ends_before(segment, other) || ends_before(other, segment)) continue;
      node.Corrupt(fmt::format("{} and {} overlap", segment.id, other.id));
    }
  }

  void CheckAreas() const {
    std::vector<const Keyslot*> slots;
    for (const Keyslot& slot : header_.keyslots) slots.push_back(&slot);
    std::ranges::sort(slots, {}, &Keyslot::area_offset);
    for (size_t i = 1; i < slots.size(); ++i) {
      if (slots[i]->area_offset <
          slots[i - 1]->area_offset + slots[i - 1]->area_size) {
        root_["keyslots"].Corrupt(
            fmt::format("{} and {} overlap: both have the byte {} of the "
                        "keyslots area",
                        slots[i - 1]->id, slots[i]->id, slots[i]->area_offset));
      }
    }
  }

  // Whoever wipes a keyslot must not hit data.
  void CheckAreasAgainstPayload() const {
    if (!area_.payload_follows) return;
    for (const Keyslot& slot : header_.keyslots) {
      for (const Segment& segment : header_.segments) {
        const bool behind =
            segment.size && slot.area_offset >= segment.offset + *segment.size;
        if (behind || slot.area_offset + slot.area_size <= segment.offset) {
          continue;
        }
        root_["keyslots"].Corrupt(
            fmt::format("{} has an area of {} bytes from {} on, which lies in "
                        "segment {}",
                        slot.id, slot.area_size, slot.area_offset, segment.id));
      }
    }
  }

  const Node root_;
  const Luks2Area& area_;
  VolumeHeader header_;
};

}  // namespace

VolumeHeader ParseLuks2Metadata(std::string_view text, const Luks2Area& area) {
  // Whoever copies such a document recurses.
  if (JsonDepth(text) > kMaxDepth) {
    throw CorruptImage(fmt::format(
        "{}: the LUKS2 metadata at byte {} nests deeper than {} levels",
        area.file_name, area.json_offset, kMaxDepth));
  }
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    throw CorruptImage(
        fmt::format("{}: the LUKS2 metadata at byte {} is not JSON",
                    area.file_name, area.json_offset));
  }
  return MetadataParser(document, area).Parse();
}

}  // namespace pellucid::luks
