// The JSON area of a LUKS2 header, each field at its limit and beyond.

#include "engine/luks/luks2_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "engine/errors.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::luks {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// As `cryptsetup luksFormat` writes it: one Argon2id keyslot, one PBKDF2
// keyslot, one segment.
json ValidDocument() {
  return json::parse(R"({
    "keyslots": {
      "0": {
        "type": "luks2", "key_size": 64,
        "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
        "area": {"type": "raw", "offset": "32768", "size": "258048",
                 "encryption": "aes-xts-plain64", "key_size": 64},
        "kdf": {"type": "argon2id", "time": 4, "memory": 1048576, "cpus": 4,
                "salt": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="}
      },
      "7": {
        "type": "luks2", "key_size": 64, "priority": 2,
        "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
        "area": {"type": "raw", "offset": "290816", "size": "258048",
                 "encryption": "aes-xts-plain64", "key_size": 64},
        "kdf": {"type": "pbkdf2", "hash": "sha512", "iterations": 1000,
                "salt": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="}
      }
    },
    "tokens": {"3": {"type": "luks2-keyring", "keyslots": ["7"],
                     "key_description": "anything"}},
    "segments": {
      "0": {"type": "crypt", "offset": "16777216", "size": "dynamic",
            "iv_tweak": "0", "encryption": "aes-xts-plain64",
            "sector_size": 4096}
    },
    "digests": {
      "0": {"type": "pbkdf2", "keyslots": ["0", "7"], "segments": ["0"],
            "hash": "sha256", "iterations": 1000,
            "salt": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=",
            "digest": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="}
    },
    "config": {"json_size": "12288", "keyslots_size": "16744448"}
  })");
}

const Luks2Area kArea = {.file_name = "disk.img",
                         .json_offset = 4096,
                         .header_bytes = 32768,
                         .area_bytes = 32 << 20,
                         .payload_follows = true};

VolumeHeader Parse(const json& document) {
  return ParseLuks2Metadata(document.dump(), kArea);
}

TEST(Luks2Metadata, WhatCryptsetupWritesIsRead) {
  const VolumeHeader header = Parse(ValidDocument());
  EXPECT_EQ(header.version, 2u);
  ASSERT_EQ(header.keyslots.size(), 2u);
  EXPECT_EQ(header.keyslots[0].kdf.type, "argon2id");
  EXPECT_EQ(header.keyslots[0].kdf.memory_kib, 1048576u);
  EXPECT_EQ(header.keyslots[0].kdf.salt.size(), 32u);
  EXPECT_EQ(header.keyslots[1].id, 7u);
  EXPECT_EQ(header.keyslots[1].priority, Priority::kPrefer);
  EXPECT_EQ(header.keyslots[1].area_offset, 290816u);
  ASSERT_EQ(header.segments.size(), 1u);
  EXPECT_EQ(header.segments[0].offset, 16777216u);
  EXPECT_FALSE(header.segments[0].size);
  EXPECT_EQ(header.segments[0].encryption->sector_size, 4096u);
  ASSERT_EQ(header.digests.size(), 1u);
  EXPECT_EQ(header.digests[0].keyslots, (std::vector<unsigned>{0, 7}));
  ASSERT_EQ(header.tokens.size(), 1u);
  EXPECT_EQ(header.tokens[0].type, "luks2-keyring");
}

TEST(Luks2Metadata, SegmentsInARowAreRead) {
  json document = ValidDocument();
  document["segments"]["0"]["size"] = "1048576";
  document["segments"]["1"] = {
      {"type", "linear"}, {"offset", "18874368"}, {"size", "4096"}};
  document["segments"]["2"] = document["segments"]["0"];
  document["segments"]["2"]["offset"] = "20971520";
  document["segments"]["2"]["size"] = "dynamic";
  document["segments"]["2"]["iv_tweak"] = "2048";
  document["digests"]["0"]["segments"] = {"0", "2"};
  const VolumeHeader header = Parse(document);
  ASSERT_EQ(header.segments.size(), 3u);
  EXPECT_EQ(header.segments[0].size, 1048576u);
  EXPECT_FALSE(header.segments[1].encryption);
  EXPECT_EQ(header.segments[2].iv_tweak, 2048u);
}

TEST(Luks2Metadata, SegmentsThatOverlapOrAreTooLongAreRefused) {
  json document = ValidDocument();
  document["segments"]["0"]["size"] = "1048576";
  document["segments"]["1"] = {
      {"type", "linear"}, {"offset", "17825280"}, {"size", "4096"}};
  EXPECT_THAT(ThrownText<CorruptImage>([&] { Parse(document); }),
              HasSubstr("0 and 1 overlap"));
  document["segments"]["1"]["offset"] = "17825792";
  EXPECT_NO_THROW(Parse(document));
  document["segments"]["1"]["size"] = "9223372036854771712";
  EXPECT_THAT(ThrownText<CorruptImage>([&] { Parse(document); }),
              HasSubstr("longer than 2^63 bytes together"));
}

// One change to the valid document, and what the refusal has to say.
struct Fault {
  const char* name;
  const char* at;             // JSON pointer.
  std::optional<json> value;  // Nothing: the member is removed.
  const char* path;           // In the message.
  const char* why;
};

void Apply(const Fault& fault, json& document) {
  const json::json_pointer at(fault.at);
  if (fault.value) {
    document[at] = *fault.value;
  } else {
    document[at.parent_pointer()].erase(at.back());
  }
}

class CorruptLuks2Metadata : public testing::TestWithParam<Fault> {};
class UnsupportedLuks2Metadata : public testing::TestWithParam<Fault> {};

TEST_P(CorruptLuks2Metadata, IsNamed) {
  json document = ValidDocument();
  Apply(GetParam(), document);
  const auto text = ThrownText<CorruptImage>([&] { Parse(document); });
  EXPECT_THAT(text, HasSubstr("disk.img: "));
  EXPECT_THAT(text, HasSubstr(GetParam().path));
  EXPECT_THAT(text, HasSubstr(GetParam().why));
}

TEST_P(UnsupportedLuks2Metadata, IsRefusedByName) {
  json document = ValidDocument();
  Apply(GetParam(), document);
  const auto text = ThrownText<Unsupported>([&] { Parse(document); });
  EXPECT_THAT(text, HasSubstr(GetParam().path));
  EXPECT_THAT(text, HasSubstr(GetParam().why));
}

std::string NameOf(const testing::TestParamInfo<Fault>& info) {
  return info.param.name;
}

constexpr char kSlot[] = "/keyslots/0";
const std::string kBigSalt(4096, 'A');

INSTANTIATE_TEST_SUITE_P(
    Fields, CorruptLuks2Metadata,
    testing::Values(
        Fault{"NoKeyslots", "/keyslots", {}, "keyslots", "is missing"},
        Fault{"KeyslotsAnArray", "/keyslots", json::array(), "keyslots",
              "is not an object"},
        Fault{"KeyslotIsText", kSlot, "x", "keyslots.0", "is not an object"},
        Fault{"KeyslotIdNoNumber", "/keyslots/zero", json::object(), "keyslots",
              "not a number below 32"},
        Fault{"KeyslotIdTooLarge", "/keyslots/32", json::object(), "keyslots",
              "not a number below 32"},
        Fault{"KeySizeZero", "/keyslots/0/key_size", 0, "keyslots.0.key_size",
              "is 0, not within 1 to 512"},
        Fault{"KeySizeHuge", "/keyslots/0/key_size", 513, "keyslots.0.key_size",
              "is 513"},
        Fault{"KeySizeNegative", "/keyslots/0/key_size", -1,
              "keyslots.0.key_size", "is not a whole number"},
        Fault{"KeySizeFraction", "/keyslots/0/key_size", 1.5,
              "keyslots.0.key_size", "is not a whole number"},
        Fault{"Stripes", "/keyslots/0/af/stripes", 3999,
              "keyslots.0.af.stripes", "not within 4000 to 4000"},
        Fault{"PriorityThree", "/keyslots/0/priority", 3, "keyslots.0.priority",
              "not within 0 to 2"},
        Fault{"AreaNumberNotText", "/keyslots/0/area/offset", 32768,
              "keyslots.0.area.offset", "is not a string"},
        Fault{"AreaOffsetSigned", "/keyslots/0/area/offset", "-32768",
              "keyslots.0.area.offset", "is not a decimal number"},
        Fault{"AreaOffset65Bits", "/keyslots/0/area/offset",
              "18446744073709551616", "keyslots.0.area.offset",
              "is not a decimal number of 64 bits"},
        Fault{"AreaInHeader", "/keyslots/0/area/offset", "32767",
              "keyslots.0.area.offset", "keyslots have the bytes from 32768"},
        Fault{"AreaBehindEnd", "/keyslots/0/area/offset",
              "18446744073709551615", "keyslots.0.area.offset",
              "keyslots have the bytes"},
        Fault{"AreaTooSmall", "/keyslots/0/area/size", "255999",
              "keyslots.0.area.size", "below the 256000 bytes"},
        Fault{"AreaSizeWraps", "/keyslots/0/area/size", "18446744073709551615",
              "keyslots.0.area.offset", "keyslots have the bytes"},
        Fault{"AreasOverlap", "/keyslots/7/area/offset", "290815", "keyslots",
              "overlap"},
        Fault{"AreaInPayload", "/keyslots/7/area/offset", "16777216",
              "keyslots", "segment 0"},
        Fault{"SaltNoBase64", "/keyslots/0/kdf/salt", "!!!!",
              "keyslots.0.kdf.salt", "is not base64"},
        Fault{"SaltEmpty", "/keyslots/0/kdf/salt", "", "keyslots.0.kdf.salt",
              "is 0 bytes long"},
        Fault{"SaltTooLong", "/keyslots/0/kdf/salt", kBigSalt,
              "keyslots.0.kdf.salt", "not within 1 to 1024"},
        Fault{"SaltTooShortForArgon2", "/keyslots/0/kdf/salt", "MTIzNDU2Nw==",
              "keyslots.0.kdf.salt", "shorter than the 8 bytes"},
        Fault{"IterationsZero", "/keyslots/7/kdf/iterations", 0,
              "keyslots.7.kdf.iterations", "is 0"},
        Fault{"TimeZero", "/keyslots/0/kdf/time", 0, "keyslots.0.kdf.time",
              "is 0"},
        Fault{"TimeForever", "/keyslots/0/kdf/time", 4294967295U,
              "keyslots.0.kdf.time", "would take hours"},
        Fault{"MemoryAbove4GiB", "/keyslots/0/kdf/memory", 4194305,
              "keyslots.0.kdf.memory", "not within 8 to 4194304"},
        Fault{"MemoryBelowLanes", "/keyslots/0/kdf/memory", 31,
              "keyslots.0.kdf.memory", "below 8 KiB for each of 4 cpus"},
        Fault{"CpusZero", "/keyslots/0/kdf/cpus", 0, "keyslots.0.kdf.cpus",
              "is 0"},
        Fault{"CpusMany", "/keyslots/0/kdf/cpus", 65, "keyslots.0.kdf.cpus",
              "not within 1 to 64"},
        Fault{"DigestEmpty", "/digests/0/digest", "", "digests.0.digest",
              "is 0 bytes long; sha256 has 32"},
        Fault{"DigestCut", "/digests/0/digest",
              "MTIzNDU2Nzg=", "digests.0.digest", "is 8 bytes long"},
        Fault{"DigestIterationsZero", "/digests/0/iterations", 0,
              "digests.0.iterations", "is 0"},
        Fault{"DigestKeyslotsNumbers", "/digests/0/keyslots",
              json::array({0, 7}), "digests.0.keyslots[]", "is not a string"},
        Fault{"NoSegments", "/segments", json::object(), "segments",
              "is empty"},
        Fault{"SegmentWithoutDigest", "/digests/0/segments", json::array(),
              "segments.0", "a key that no keyslot holds"},
        Fault{"SegmentInHeader", "/segments/0/offset", "4096", "segments",
              "inside the 32768 bytes of the header"},
        Fault{"SegmentUnaligned", "/segments/0/offset", "16777217",
              "segments.0.offset", "is not a multiple of 512"},
        Fault{"SegmentSizeZero", "/segments/0/size", "0", "segments.0.size",
              "is not a positive multiple of 4096"},
        Fault{"SegmentSizeOdd", "/segments/0/size", "4608", "segments.0.size",
              "is not a positive multiple of 4096"},
        Fault{"SegmentSizeWraps", "/segments/0/size", "18446744073709547520",
              "segments.0.size", "is not a positive multiple"},
        Fault{"DynamicNotLast", "/segments/1",
              json{{"type", "linear"},
                   {"offset", "33554432"},
                   {"size", "dynamic"}},
              "segments", "is not the last one"},
        Fault{"KeySizesDiffer", "/keyslots/7/key_size", 32, "keyslots",
              "7.key_size is 32, but other keyslots of the same key have 64"},
        Fault{"SectorSize", "/segments/0/sector_size", 1536,
              "segments.0.sector_size", "not a power of two"},
        Fault{"SectorSizeBig", "/segments/0/sector_size", 8192,
              "segments.0.sector_size", "not within 512 to 4096"},
        Fault{"ControlCharacters", "/segments/0/encryption",
              "aes\x1b[31m-xts-plain64", "segments.0.encryption",
              "is not ASCII text"}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    Features, UnsupportedLuks2Metadata,
    testing::Values(
        Fault{"Requirement", "/config/requirements",
              json{{"mandatory", {"online-reencrypt-v2", "opal"}}},
              "config.requirements.mandatory", "online-reencrypt-v2, opal"},
        Fault{"ReencryptKeyslot", "/keyslots/1",
              json{{"type", "reencrypt"}, {"key_size", 1}}, "keyslots.1",
              "cryptsetup reencrypt --resume-only"},
        Fault{"ReencryptFlag", "/segments/0/flags",
              json::array({"in-reencryption"}), "segments.0.flags",
              "reencryption is in progress"},
        Fault{"Integrity", "/segments/0/integrity",
              json{{"type", "hmac(sha256)"}}, "segments.0.integrity",
              "authenticated encryption"},
        Fault{"Opal", "/segments/0/type", "hw-opal-crypt", "segments.0.type",
              "hw-opal-crypt"},
        Fault{"Cipher", "/segments/0/encryption", "rot13-ecb",
              "segments.0.encryption", "supported: aes"},
        Fault{"CapiName", "/segments/0/encryption",
              "capi:xts(ecb(aes-generic))-plain64", "segments.0.encryption",
              "capi:"},
        Fault{"NullCipher", "/segments/0/encryption", "cipher_null-ecb",
              "segments.0.encryption", "cipher_null"},
        Fault{"AreaCipher", "/keyslots/0/area/encryption", "aes-gcm-random",
              "keyslots.0.area.encryption", "not supported"},
        Fault{"Kdf", "/keyslots/0/kdf/type", "scrypt", "keyslots.0.kdf.type",
              "pbkdf2, argon2i and argon2id"},
        Fault{"AfHash", "/keyslots/0/af/hash", "crc32", "keyslots.0.af.hash",
              "crc32"},
        Fault{"DigestHash", "/digests/0/hash", "none", "digests.0.hash",
              "none"},
        Fault{"DigestType", "/digests/0/type", "hmac", "digests.0.type",
              "only digest"}),
    NameOf);

TEST(Luks2Metadata, ADigestOfAConvertedLuks1VolumeIsTaken) {
  json document = ValidDocument();
  document["digests"]["0"]["digest"] = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=";
  EXPECT_EQ(Parse(document).digests[0].value.size(), 20u);
}

TEST(Luks2Metadata, TextThatIsNoJsonIsNamed) {
  const std::string valid = ValidDocument().dump();
  for (size_t cut = 0; cut < valid.size(); ++cut) {
    EXPECT_THROW(ParseLuks2Metadata(valid.substr(0, cut), kArea), CorruptImage)
        << cut;
  }
}

TEST(Luks2Metadata, JsonThatIsNoObjectIsNamed) {
  EXPECT_THAT(
      ThrownText<CorruptImage>([] { ParseLuks2Metadata("[]", kArea); }),
      HasSubstr("disk.img: LUKS2 metadata (in the JSON at byte 4096) is not an "
                "object"));
}

TEST(Luks2Metadata, DeepAndWideJsonEndsSoon) {
  const auto begin = std::chrono::steady_clock::now();
  const size_t size = 4 << 20;
  const std::string deep(size, '[');
  const std::string nested =
      std::string(size / 2, '[') + std::string(size / 2, ']');
  std::string wide = "{\"keyslots\":{";
  while (wide.size() < size) {
    wide += "\"" + std::to_string(wide.size()) + "\":{},";
  }
  wide += "\"0\":{}}}";
  for (const std::string& text : {deep, nested, wide}) {
    EXPECT_THROW(ParseLuks2Metadata(text, kArea), CorruptImage);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

// Fields that nobody knows are kept, and whatever copies them recurses.
TEST(Luks2Metadata, NestingEndsAt32Levels) {
  const auto nested = [](size_t levels) {
    json document = ValidDocument();
    json value = "brackets in a text [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ \\\"[[";
    for (size_t i = 0; i < levels; ++i) {
      value = i % 2 == 0 ? json{{"in", value}} : json::array({value});
    }
    document["unheard_of"] = value;
    return document.dump();
  };
  EXPECT_NO_THROW(ParseLuks2Metadata(nested(31), kArea));
  EXPECT_THAT(
      ThrownText<CorruptImage>([&] { ParseLuks2Metadata(nested(32), kArea); }),
      HasSubstr("disk.img: the LUKS2 metadata at byte 4096 nests deeper than "
                "32 levels"));
}

// A second spelling of a number would be a second keyslot of that number.
TEST(Luks2Metadata, NumbersHaveOneSpelling) {
  for (const char* spelling : {"07", "+7", " 7", "7 ", "0x7", ""}) {
    json document = ValidDocument();
    document["keyslots"][spelling] = document["keyslots"]["7"];
    EXPECT_THAT(ThrownText<CorruptImage>([&] { Parse(document); }),
                HasSubstr("names an object that is not a number below 32"))
        << spelling;
    document = ValidDocument();
    document["digests"]["0"]["keyslots"] = {"0", spelling};
    EXPECT_THAT(ThrownText<CorruptImage>([&] { Parse(document); }),
                HasSubstr("names an object that is not a number below 32"))
        << spelling;
  }
}

// Flips bytes of the text: an error or a header, nothing else.
TEST(Luks2Metadata, NoFlippedByteDoesHarm) {
  const std::string valid = ValidDocument().dump();
  for (size_t i = 0; i < valid.size(); ++i) {
    for (const char mask : {'\x01', '\x10', '\x80'}) {
      std::string text = valid;
      text[i] = static_cast<char>(text[i] ^ mask);
      try {
        ParseLuks2Metadata(text, kArea);
      } catch (const Error&) {
      }
    }
  }
}

}  // namespace
}  // namespace pellucid::luks
