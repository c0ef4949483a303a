// Headers written over other headers.

#include "engine/luks/header_copy.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "engine/errors.h"
#include "engine/luks/format_header.h"
#include "engine/luks/keyslot_editor.h"
#include "engine/luks/luks2_header.h"
#include "engine/luks/unlock.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/recording_device.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

constexpr uint64_t kPlaceBytes = 20 << 20;

SecretBytes Secret(std::string_view text) {
  return SecretBytes(std::as_bytes(std::span(text)));
}

KdfCost Cheap() {
  KdfCost cost;
  cost.type = "pbkdf2";
  cost.iterations = 1000;
  return cost;
}

WritableHeader PlaceOn(RecordingDevice& device, Place place) {
  return {.device = &device,
          .offset = 0,
          .area_bytes = device.size(),
          .file_name = "volume",
          .place = place};
}

// A disk with a header in place, opened by `passphrase` through keyslot
// `keyslot` alone.
Bytes NewVolume(unsigned version, const std::string& passphrase,
                unsigned keyslot = 0) {
  FormatOptions options;
  options.version = version;
  options.layout = Layout::kInPlace;
  options.kdf = Cheap();
  RecordingDevice device{Bytes(kPlaceBytes)};
  const SecretBytes key = FormatHeader(device, options, Secret(passphrase));
  if (keyslot != 0) {
    KeyslotEditor editor(PlaceOn(device, Place::kInPlace));
    for (unsigned id = 1; id <= keyslot; ++id) {
      editor.Add(key, Secret(passphrase),
                 {.id = id, .kdf = Cheap(), .priority = {}});
    }
    for (unsigned id = 0; id < keyslot; ++id) editor.Remove(id, false);
  }
  return device.bytes();
}

HeaderCopy CopyOf(const Bytes& disk) {
  MemoryDevice device(disk);
  return CopyHeader(
      ReadLuksHeader(device, 0, device.size(), "volume", Place::kInPlace),
      device.size());
}

bool Opens(const Bytes& disk, const std::string& passphrase) {
  MemoryDevice device(disk);
  KnownPassphrases passphrases({passphrase});
  try {
    Unlock(ReadLuksHeader(device, 0, device.size(), "volume", Place::kInPlace),
           "volume", std::nullopt, passphrases);
    return true;
  } catch (const Error&) {
    return false;
  }
}

Bytes Piece(const Bytes& disk, uint64_t offset, uint64_t size) {
  const auto begin = disk.begin() + static_cast<ptrdiff_t>(offset);
  return {begin, begin + static_cast<ptrdiff_t>(size)};
}

// Writes the header of `source` over that of `disk`.
Bytes Restored(const Bytes& disk, const Bytes& source) {
  RecordingDevice device(disk);
  const WritableHeader place = PlaceOn(device, Place::kInPlace);
  WriteHeaderCopy(place, CopyOf(source), CopyHeaderIfReadable(place));
  return device.bytes();
}

struct Versions {
  unsigned present;
  unsigned restored;
};

class HeaderOverHeaderTest : public ::testing::TestWithParam<Versions> {};

// Whichever keyslots the two have: those of LUKS1 stand where LUKS2 has its
// metadata.
TEST_P(HeaderOverHeaderTest, OpensAndNothingOfTheOldOneIsLeft) {
  std::vector<Bytes> sources;
  for (const unsigned slot : {0U, 1U, 2U}) {
    sources.push_back(NewVolume(GetParam().restored, "restored", slot));
  }
  for (const unsigned old_slot : {0U, 1U}) {
    const Bytes before = NewVolume(GetParam().present, "old", old_slot);
    const HeaderCopy old = CopyOf(before);
    for (const Bytes& source : sources) {
      const Bytes after = Restored(before, source);
      EXPECT_TRUE(Opens(after, "restored"));
      EXPECT_FALSE(Opens(after, "old"));
      for (const HeaderCopy::Area& area : old.areas) {
        const auto begin =
            after.begin() + static_cast<ptrdiff_t>(area.keyslot.area_offset);
        for (ptrdiff_t at = 0; at + 64 <= std::ssize(area.bytes); at += 64) {
          ASSERT_FALSE(
              std::equal(begin + at, begin + at + 64, area.bytes.begin() + at))
              << "old key material, byte " << at << " of the area";
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, HeaderOverHeaderTest,
                         ::testing::Values(Versions{1, 1}, Versions{1, 2},
                                           Versions{2, 1}, Versions{2, 2}),
                         [](const auto& info) {
                           return fmt::format("Luks{}UnderLuks{}",
                                              info.param.present,
                                              info.param.restored);
                         });

// Its key material is gone, but it would still be taken for the header if the
// new one were damaged.
TEST(HeaderCopyTest, NoSecondCopyOfTheOldHeaderSurvives) {
  const Bytes old = NewVolume(2, "old");
  // A keyslot that does not cover the old second copy.
  Bytes after = Restored(old, NewVolume(1, "restored", 2));
  std::fill_n(after.begin(), 4096, std::byte{0});
  MemoryDevice device(after);
  EXPECT_FALSE(HasSecondLuks2Copy(device));
}

TEST(HeaderCopyTest, KeyMaterialInThePayloadIsNotOverwritten) {
  // A LUKS2 header with its last keyslot behind the place where the payload of
  // the LUKS1 volume begins, as on a disk that was formatted anew by mistake.
  const Bytes luks1 = NewVolume(1, "restored");
  const uint64_t payload = CopyOf(luks1).payload_offset;
  Bytes luks2 = NewVolume(2, "old", 9);
  const HeaderCopy::Area area = CopyOf(luks2).areas.front();
  ASSERT_GT(area.keyslot.area_offset, payload);
  const Bytes after = Restored(luks2, luks1);
  EXPECT_EQ(Piece(after, payload, kPlaceBytes - payload),
            Piece(luks2, payload, kPlaceBytes - payload));
}

TEST(HeaderCopyTest, TheVolumeKeyIsKnownByItsDigest) {
  for (const unsigned version : {1U, 2U}) {
    const Bytes volume = NewVolume(version, "a");
    EXPECT_EQ(CopyOf(volume).volume_digest, CopyOf(volume).volume_digest);
    EXPECT_NE(CopyOf(volume).volume_digest,
              CopyOf(NewVolume(version, "a")).volume_digest);
    EXPECT_FALSE(CopyOf(volume).volume_digest.empty());
  }
}

}  // namespace
}  // namespace pellucid::luks
