#include "engine/luks/luks2_json.h"

#include <algorithm>

#include "crypto/base64.h"

namespace pellucid::luks {
namespace {

std::string CipherText(const Encryption& encryption) {
  return encryption.mode.empty() ? encryption.cipher
                                 : encryption.cipher + "-" + encryption.mode;
}

Luks2Json Ids(const std::vector<unsigned>& ids) {
  Luks2Json array = Luks2Json::array();
  for (const unsigned id : ids) array.push_back(std::to_string(id));
  return array;
}

// The fields of a kdf object, which a digest has among its own.
void AddKdf(const Kdf& kdf, Luks2Json& object) {
  object["type"] = kdf.type;
  if (kdf.type == "pbkdf2") {
    object["hash"] = kdf.hash;
    object["iterations"] = kdf.iterations;
  } else {
    object["time"] = kdf.time;
    object["memory"] = kdf.memory_kib;
    object["cpus"] = kdf.cpus;
  }
  object["salt"] = crypto::EncodeBase64(kdf.salt);
}

}  // namespace

size_t JsonDepth(std::string_view text) {
  size_t depth = 0;
  size_t deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

// Numbers of 64 bits are strings in this format, those of 32 bits are numbers.

Luks2Json KeyslotToJson(const Keyslot& slot) {
  Luks2Json json;
  json["type"] = "luks2";
  json["key_size"] = slot.key_size;
  json["af"] = {
      {"type", "luks1"}, {"stripes", slot.stripes}, {"hash", slot.af_hash}};
  json["area"] = {{"type", "raw"},
                  {"offset", std::to_string(slot.area_offset)},
                  {"size", std::to_string(slot.area_size)},
                  {"encryption", CipherText(slot.area_encryption)},
                  {"key_size", slot.area_key_size}};
  AddKdf(slot.kdf, json["kdf"]);
  if (slot.priority != Priority::kNormal) {
    json["priority"] = static_cast<unsigned>(slot.priority);
  }
  return json;
}

Luks2Json DigestToJson(const Digest& digest) {
  Luks2Json json;
  AddKdf(digest.kdf, json);
  json["keyslots"] = Ids(digest.keyslots);
  json["segments"] = Ids(digest.segments);
  json["digest"] = crypto::EncodeBase64(digest.value);
  return json;
}

Luks2Json SegmentToJson(const Segment& segment) {
  Luks2Json json;
  json["type"] = segment.encryption ? "crypt" : "linear";
  json["offset"] = std::to_string(segment.offset);
  json["size"] = segment.size ? std::to_string(*segment.size) : "dynamic";
  if (segment.encryption) {
    json["iv_tweak"] = std::to_string(segment.iv_tweak);
    json["encryption"] = CipherText(*segment.encryption);
    json["sector_size"] = segment.encryption->sector_size;
  }
  return json;
}

Luks2Json NewLuks2Metadata(const VolumeHeader& header, uint64_t json_bytes,
                           uint64_t keyslots_bytes) {
  Luks2Json json = {{"keyslots", Luks2Json::object()},
                    {"tokens", Luks2Json::object()},
                    {"segments", Luks2Json::object()},
                    {"digests", Luks2Json::object()}};
  for (const Keyslot& slot : header.keyslots) {
    json["keyslots"][std::to_string(slot.id)] = KeyslotToJson(slot);
  }
  for (const Segment& segment : header.segments) {
    json["segments"][std::to_string(segment.id)] = SegmentToJson(segment);
  }
  for (const Digest& digest : header.digests) {
    json["digests"][std::to_string(digest.id)] = DigestToJson(digest);
  }
  json["config"] = {{"json_size", std::to_string(json_bytes)},
                    {"keyslots_size", std::to_string(keyslots_bytes)}};
  return json;
}

}  // namespace pellucid::luks
