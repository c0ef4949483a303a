#include "engine/luks/luks1_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::luks {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint32_t kActive = 0x00ac71f3;
constexpr uint32_t kInactive = 0x0000dead;
constexpr uint32_t kPayloadSector = 4096;

uint64_t SlotByte(unsigned slot, unsigned field) {
  return 208 + slot * 48 + field;
}
// With 64-byte keys, key material takes 500 sectors.
uint32_t MaterialSector(unsigned slot) { return 8 + slot * 504; }

// A sound header as cryptsetup lays it out, with slots 0 and 3 in use.
struct CraftedLuks1 {
  Bytes bytes = Bytes(kLuks1HeaderBytes);
  Luks1Place place = {.file_name = "disk.luks",
                      .offset = 0,
                      .area_bytes = kPayloadSector * kSectorSize + 100,
                      .payload_follows = true};

  CraftedLuks1() {
    SetText(0, "LUKS\xba\xbe").Set(6, 2, 1);
    SetText(8, "aes").SetText(40, "xts-plain64").SetText(72, "sha256");
    Set(104, 4, kPayloadSector).Set(108, 4, 64).Set(164, 4, 1000);
    SetText(168, "5a1c9d3e-1a2b-4c3d-8e9f-001122334455");
    std::fill_n(bytes.begin() + 112, 20, std::byte{0xd1});
    std::fill_n(bytes.begin() + 132, 32, std::byte{0x5a});
    for (unsigned slot = 0; slot < kLuks1Keyslots; ++slot) {
      const bool active = slot == 0 || slot == 3;
      Set(SlotByte(slot, 0), 4, active ? kActive : kInactive);
      Set(SlotByte(slot, 4), 4, active ? 2000 + slot : 0);
      Set(SlotByte(slot, 8), 4, 0xa0 + slot);
      Set(SlotByte(slot, 40), 4, MaterialSector(slot));
      Set(SlotByte(slot, 44), 4, 4000);
    }
  }

  CraftedLuks1& Set(uint64_t byte, unsigned width, uint64_t value) {
    StoreNumber(bytes, byte, width, value);
    return *this;
  }
  CraftedLuks1& SetText(uint64_t byte, std::string_view text) {
    std::ranges::copy(std::as_bytes(std::span(text)),
                      bytes.begin() + static_cast<ptrdiff_t>(byte));
    return *this;
  }

  Luks1Header Parse() const { return ParseLuks1Header(bytes, place); }
  std::string Corrupt() const {
    return ThrownText<CorruptImage>([&] { Parse(); });
  }
};

TEST(LuksVersionTest, MagicAndVersionAreRead) {
  CraftedLuks1 crafted;
  EXPECT_EQ(LuksVersion(crafted.bytes), 1U);
  EXPECT_EQ(LuksVersion(crafted.Set(6, 2, 2).bytes), 2U);
  EXPECT_EQ(LuksVersion(crafted.Set(6, 2, 0xffff).bytes), 0xffffU);
  EXPECT_EQ(LuksVersion(crafted.Set(6, 2, 0).bytes), 0U);
}

TEST(LuksVersionTest, EachByteOfTheMagicCounts) {
  for (size_t i = 0; i < 6; ++i) {
    CraftedLuks1 crafted;
    crafted.bytes[i] ^= std::byte{1};
    EXPECT_FALSE(LuksVersion(crafted.bytes)) << i;
  }
}

TEST(LuksVersionTest, FewerThanEightBytesAreNoVolume) {
  const CraftedLuks1 crafted;
  for (size_t length = 0; length < 8; ++length) {
    EXPECT_FALSE(LuksVersion(std::span(crafted.bytes).first(length)));
  }
  EXPECT_EQ(LuksVersion(std::span(crafted.bytes).first(8)), 1U);
}

TEST(Luks1HeaderTest, EveryFieldIsRead) {
  const Luks1Header header = CraftedLuks1().Parse();
  EXPECT_EQ(header.cipher_name, "aes");
  EXPECT_EQ(header.cipher_mode, "xts-plain64");
  EXPECT_EQ(header.hash_spec, "sha256");
  EXPECT_EQ(header.payload_offset, kPayloadSector);
  EXPECT_EQ(header.key_bytes, 64U);
  EXPECT_EQ(header.mk_digest[0], std::byte{0xd1});
  EXPECT_EQ(header.mk_digest[19], std::byte{0xd1});
  EXPECT_EQ(header.mk_digest_salt[0], std::byte{0x5a});
  EXPECT_EQ(header.mk_digest_salt[31], std::byte{0x5a});
  EXPECT_EQ(header.mk_digest_iterations, 1000U);
  EXPECT_EQ(header.uuid, "5a1c9d3e-1a2b-4c3d-8e9f-001122334455");
  for (unsigned slot = 0; slot < kLuks1Keyslots; ++slot) {
    EXPECT_EQ(header.keyslots[slot].active, slot == 0 || slot == 3);
    EXPECT_EQ(header.keyslots[slot].key_material_offset, MaterialSector(slot));
    EXPECT_EQ(header.keyslots[slot].stripes, 4000U);
    EXPECT_EQ(header.keyslots[slot].salt[3],
              static_cast<std::byte>(0xa0 + slot));
  }
  EXPECT_EQ(header.keyslots[3].iterations, 2003U);
}

TEST(Luks1HeaderTest, KeyMaterialIsCountedInWholeSectors) {
  Luks1Header header;
  for (const auto& [key_bytes, material] : {std::pair{16U, 64000U},
                                            {32U, 128000U},
                                            {64U, 256000U},
                                            {1U, 4096U},
                                            {20U, 80384U}}) {
    header.key_bytes = key_bytes;
    EXPECT_EQ(header.key_material_bytes(), material) << key_bytes;
  }
}

TEST(Luks1HeaderTest, CutOffAtEachByteIsRefused) {
  const CraftedLuks1 whole;
  for (size_t length = 0; length < kLuks1HeaderBytes; ++length) {
    CraftedLuks1 cut = whole;
    cut.bytes.resize(length);
    cut.place.offset = 4096;
    ASSERT_THAT(
        cut.Corrupt(),
        HasSubstr("disk.luks: the LUKS header at byte 4096 is cut off: " +
                  std::to_string(length) + " bytes of 592"));
  }
}

TEST(Luks1HeaderTest, TextMayFillItsField) {
  CraftedLuks1 crafted;
  crafted.SetText(8, std::string(32, 'c')).SetText(40, std::string(32, 'm'));
  crafted.SetText(72, std::string(32, 'h')).SetText(168, std::string(40, 'u'));
  const Luks1Header header = crafted.Parse();
  EXPECT_EQ(header.cipher_name, std::string(32, 'c'));
  EXPECT_EQ(header.cipher_mode, std::string(32, 'm'));
  EXPECT_EQ(header.hash_spec, std::string(32, 'h'));
  EXPECT_EQ(header.uuid, std::string(40, 'u'));
}

TEST(Luks1HeaderTest, TextThatIsNotPrintableIsNamedButNotShown) {
  for (const auto& [name, byte] : {std::pair{"cipher-name (byte 8)", 8U},
                                   {"cipher-mode (byte 40)", 40U},
                                   {"hash-spec (byte 72)", 72U},
                                   {"uuid (byte 168)", 168U}}) {
    for (const char* text : {"\x1b[2J", "\x7f", "\xc3\xa9", "\n", "\x1f"}) {
      const std::string message = CraftedLuks1().SetText(byte, text).Corrupt();
      EXPECT_THAT(message, HasSubstr(std::string("LUKS header field ") + name));
      for (const char c : message) EXPECT_TRUE(c >= ' ' && c <= '~');
    }
  }
}

TEST(Luks1HeaderTest, WhatStandsBehindTheNulIsNoText) {
  CraftedLuks1 crafted;
  crafted.SetText(8, {"aes\0\x1b\xff", 6});
  EXPECT_EQ(crafted.Parse().cipher_name, "aes");
}

struct FieldCase {
  const char* name;
  uint64_t byte;
  uint64_t good;
  uint64_t bad;
};

class Luks1Field : public testing::TestWithParam<FieldCase> {};

INSTANTIATE_TEST_SUITE_P(
    Limits, Luks1Field,
    testing::Values(
        FieldCase{"key-bytes (byte 108)", 108, 1, 0},
        FieldCase{"key-bytes (byte 108)", 108, 32, 513},
        FieldCase{"key-bytes (byte 108)", 108, 64, 0xffffffff},
        FieldCase{"mk-digest-iter (byte 164)", 164, 1, 0},
        FieldCase{"active of keyslot 1 (byte 256)", 256, kInactive, 0},
        FieldCase{"active of keyslot 0 (byte 208)", 208, kInactive,
                  kActive + 1},
        FieldCase{"iterations of keyslot 3 (byte 356)", 356, 1, 0},
        FieldCase{"stripes of keyslot 0 (byte 252)", 252, 4000, 3999},
        FieldCase{"stripes of keyslot 7 (byte 588)", 588, 4000, 4001},
        FieldCase{"stripes of keyslot 7 (byte 588)", 588, 4000, 0},
        // Keyslot 0: from behind the header to in front of keyslot 1.
        FieldCase{"key-material-offset of keyslot 0 (byte 248)", 248, 2, 1},
        FieldCase{"key-material-offset of keyslot 0 (byte 248)", 248, 8, 0},
        FieldCase{"key-material-offset of keyslot 1 (byte 296)", 248, 12, 13},
        FieldCase{"key-material-offset of keyslot 7 (byte 584)", 584, 3532,
                  3531},
        // Keyslot 7 ends 500 sectors on, where the payload begins at the
        // latest.
        FieldCase{"key-material-offset of keyslot 7 (byte 584)", 584, 3596,
                  3597},
        FieldCase{"key-material-offset of keyslot 7 (byte 584)", 584, 3596,
                  0xffffffff},
        FieldCase{"key-material-offset of keyslot 7 (byte 584)", 104, 4036,
                  4035},
        FieldCase{"key-material-offset of keyslot 0 (byte 248)", 104, 4096,
                  0}));

TEST_P(Luks1Field, LimitIsTaken) {
  CraftedLuks1 crafted;
  EXPECT_NO_THROW(crafted.Set(GetParam().byte, 4, GetParam().good).Parse());
}

TEST_P(Luks1Field, OnePastTheLimitIsNamedInTheError) {
  CraftedLuks1 crafted;
  EXPECT_THAT(crafted.Set(GetParam().byte, 4, GetParam().bad).Corrupt(),
              HasSubstr(std::string("disk.luks: LUKS header field ") +
                        GetParam().name));
}

TEST(Luks1HeaderTest, LongestKeyIsTakenWhereThereIsRoomForIt) {
  CraftedLuks1 crafted;
  crafted.Set(108, 4, 512).Set(104, 4, 40000);
  crafted.place.area_bytes = 40000 * kSectorSize;
  for (unsigned slot = 0; slot < kLuks1Keyslots; ++slot) {
    crafted.Set(SlotByte(slot, 40), 4, 8 + slot * 4000);
  }
  EXPECT_EQ(crafted.Parse().key_material_bytes(), 2048000U);
}

TEST(Luks1HeaderTest, MessagesCountBytesFromTheStartOfTheFile) {
  CraftedLuks1 crafted;
  crafted.place.offset = 0x30000;
  EXPECT_THAT(crafted.Set(108, 4, 0).Corrupt(),
              HasSubstr("key-bytes (byte 196716)"));
}

TEST(Luks1HeaderTest, KeyMaterialMustEndInsideTheHeadersArea) {
  CraftedLuks1 crafted;
  crafted.place.payload_follows = false;
  const uint64_t end_of_slot_3 = (MaterialSector(3) + 500) * kSectorSize;
  crafted.place.area_bytes = end_of_slot_3;  // Slots 4 to 7 are not in use.
  EXPECT_NO_THROW(crafted.Parse());
  crafted.place.area_bytes = end_of_slot_3 - 1;
  EXPECT_THAT(crafted.Corrupt(),
              AllOf(HasSubstr("key-material-offset of keyslot 3 (byte 392)"),
                    HasSubstr("1034240 bytes from the header's start")));
}

TEST(Luks1HeaderTest, DetachedHeaderMayHaveAnyPayloadOffset) {
  for (const uint32_t sector : {0U, 1U, 0xffffffffU}) {
    CraftedLuks1 crafted;
    crafted.place.payload_follows = false;
    EXPECT_EQ(crafted.Set(104, 4, sector).Parse().payload_offset, sector);
  }
}

TEST(Luks1HeaderTest, OverlapOfAnyTwoSlotsIsNamedByTheLaterOne) {
  CraftedLuks1 crafted;
  crafted.Set(SlotByte(6, 40), 4, MaterialSector(2) + 499);
  EXPECT_THAT(crafted.Corrupt(), AllOf(HasSubstr("of keyslot 6 (byte 536)"),
                                       HasSubstr("that of keyslot 2")));
}

}  // namespace
}  // namespace pellucid::luks
