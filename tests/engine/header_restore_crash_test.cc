// Power cuts while a header is written over another one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/errors.h"
#include "engine/luks/format_header.h"
#include "engine/luks/header_copy.h"
#include "engine/luks/keyslot_editor.h"
#include "engine/luks/unlock.h"
#include "tests/engine/crash_device.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/recording_device.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

// Passphrases by the keyslot that they are in.
using Keyslots = std::map<unsigned, std::string>;

KdfCost Cheap() {
  KdfCost cost;
  cost.type = "pbkdf2";
  cost.iterations = 1000;
  return cost;
}

SecretBytes Secret(std::string_view text) {
  return SecretBytes(std::as_bytes(std::span(text)));
}

WritableHeader PlaceOn(WritableDevice& device) {
  return {.device = &device,
          .offset = 0,
          .area_bytes = device.size(),
          .file_name = "header",
          .place = Place::kDetached};
}

// A volume whose headers have been different ones.
class Volume {
 public:
  // Little room, so that areas are close together.
  explicit Volume(unsigned version) {
    FormatOptions options;
    options.version = version;
    options.layout = Layout::kDetached;
    options.kdf = Cheap();
    RecordingDevice device{Bytes(HeaderBytes(options))};
    key_ = FormatHeader(device, options, Secret("first"));
    fresh_ = device.bytes();
  }

  // Its header with other keyslots.
  Bytes HeaderWith(const Keyslots& keyslots) const {
    RecordingDevice device(fresh_);
    KeyslotEditor editor(PlaceOn(device));
    const auto add = [&](unsigned id, const std::string& passphrase) {
      editor.Add(key_, Secret(passphrase),
                 {.id = id, .kdf = Cheap(), .priority = {}});
    };
    // Areas of LUKS2 go by the order in which they are taken: like the numbers.
    const bool has_first = keyslots.contains(0);
    if (has_first) {
      add(7, "other");
      editor.Remove(0, /*force=*/false);
      add(0, keyslots.at(0));
      editor.Remove(7, /*force=*/false);
    }
    for (unsigned id = 1; id <= keyslots.rbegin()->first; ++id) {
      add(id, keyslots.contains(id) ? keyslots.at(id) : "unwanted");
    }
    for (unsigned id = 0; id < keyslots.rbegin()->first; ++id) {
      if (!keyslots.contains(id)) editor.Remove(id, /*force=*/false);
    }
    return device.bytes();
  }

 private:
  SecretBytes key_;
  Bytes fresh_;
};

HeaderCopy CopyOf(const Bytes& header) {
  MemoryDevice device(header);
  return CopyHeader(
      ReadLuksHeader(device, 0, device.size(), "header", Place::kDetached),
      device.size());
}

bool Opens(std::span<const std::byte> header, const std::string& passphrase) {
  BorrowedDisk device(header);
  KnownPassphrases passphrases({passphrase});
  try {
    Unlock(ReadLuksHeader(device, 0, device.size(), "header", Place::kDetached),
           "header", std::nullopt, passphrases);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool OpensWithAll(std::span<const std::byte> header, const Keyslots& keyslots) {
  for (const auto& [id, passphrase] : keyslots) {
    if (!Opens(header, passphrase)) return false;
  }
  return true;
}

void Restore(CrashDisks& disks, const HeaderCopy& copy) {
  const auto device = disks.Open();
  const WritableHeader place = PlaceOn(*device);
  WriteHeaderCopy(place, copy, CopyHeaderIfReadable(place));
}

// The command once more, on what the power cut left.
void ExpectRepeatable(const CrashPoint& point, const HeaderCopy& copy,
                      const Keyslots& keyslots) {
  CrashDisks again(Bytes(point.disks[0].begin(), point.disks[0].end()));
  again.StopRecording();
  Restore(again, copy);
  EXPECT_TRUE(OpensWithAll(again.contents()[0], keyslots)) << point.description;
}

struct Case {
  const char* name;
  unsigned version;
  Keyslots present;
  Keyslots backup;
};

void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

class HeaderRestoreCrashTest : public ::testing::TestWithParam<Case> {};

// In the words of the one who knows a passphrase: it opens the volume until all
// of the backup do.
TEST_P(HeaderRestoreCrashTest, APowerCutLeavesAllOldPassphrasesOrAllNewOnes) {
  const unsigned version = GetParam().version;
  const Keyslots& present = GetParam().present;
  const Keyslots& backup = GetParam().backup;
  const Volume volume(version);
  const Bytes before = volume.HeaderWith(present);
  const Bytes source = volume.HeaderWith(backup);
  const HeaderCopy copy = CopyOf(source);
  CrashDisks disks(before);
  Restore(disks, copy);
  ASSERT_EQ(disks.events().back().kind, DiskEvent::Kind::kFlush);

  uint64_t old_opened = 0;
  uint64_t new_opened = 0;
  uint64_t points = 0;
  // Few tear the one write of a LUKS1 header that matters.
  const double samples = version == 1 ? 24 : 4;
  ForEachCrashPoint(disks, samples, 1, [&](const CrashPoint& point) {
    if (::testing::Test::HasFailure()) return;
    const bool with_old = OpensWithAll(point.disks[0], present);
    const bool with_new = OpensWithAll(point.disks[0], backup);
    EXPECT_TRUE(with_old || with_new) << point.description;
    old_opened += with_old ? 1 : 0;
    new_opened += with_new ? 1 : 0;
    if (points++ % 16 == 0) ExpectRepeatable(point, copy, backup);
  });
  EXPECT_GT(old_opened, 0u);
  EXPECT_GT(new_opened, 0u);

  // What is there at last is what was saved, and nothing of the old header.
  const Bytes& after = disks.contents()[0];
  const HeaderCopy restored = CopyOf(after);
  EXPECT_EQ(restored.luks2.json, copy.luks2.json);
  if (version == 1) {
    EXPECT_EQ(EncodeLuks1Header(restored.luks1), EncodeLuks1Header(copy.luks1));
  }
  for (const auto& [id, passphrase] : present) {
    EXPECT_FALSE(Opens(after, passphrase)) << passphrase;
  }
  for (const HeaderCopy::Area& area : restored.areas) {
    const auto end = area.bytes.begin() + 64;
    const auto once =
        std::search(after.begin(), after.end(), area.bytes.begin(), end);
    ASSERT_NE(once, after.end());
    EXPECT_EQ(std::search(once + 1, after.end(), area.bytes.begin(), end),
              after.end())
        << "key material of keyslot " << area.keyslot.id << " twice";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, HeaderRestoreCrashTest,
    ::testing::Values(
        // In each other's place.
        Case{"Luks1SameKeyslot", 1, {{0, "old"}}, {{0, "new"}}},
        Case{"Luks2SameKeyslot", 2, {{0, "old"}}, {{0, "new"}}},
        // Keyslot 6 lies across the sectors of a LUKS1 header, 7 behind them.
        Case{"Luks1OtherSector", 1, {{0, "old"}}, {{6, "new"}}},
        Case{"Luks1OtherSectorBack", 1, {{6, "old"}}, {{0, "new"}}},
        Case{"Luks1LastKeyslot", 1, {{7, "old"}}, {{7, "new"}}},
        Case{"Luks2OtherKeyslot", 2, {{0, "old"}}, {{3, "new"}}},
        Case{"Luks1Several",
             1,
             {{0, "a"}, {1, "b"}, {6, "c"}},
             {{0, "d"}, {1, "e"}, {7, "f"}}},
        Case{"Luks2Several",
             2,
             {{0, "a"}, {1, "b"}, {2, "c"}},
             {{0, "d"}, {1, "e"}, {4, "f"}}}),
    [](const auto& info) { return std::string(info.param.name); });

struct Replacement {
  const char* name;
  unsigned present_version;
  Keyslots present;
  unsigned version;
  Keyslots backup;
  bool is_other_volume;
};

void PrintTo(const Replacement& one, std::ostream* out) { *out << one.name; }

class HeaderReplacementCrashTest
    : public ::testing::TestWithParam<Replacement> {};

// Where no order leaves something that opens at all times.
TEST_P(HeaderReplacementCrashTest, WhateverIsLeftTheBackupCanBeRestored) {
  const Replacement& one = GetParam();
  const Volume volume(one.version);
  Bytes before = one.is_other_volume
                     ? Volume(one.present_version).HeaderWith(one.present)
                     : volume.HeaderWith(one.present);
  const Bytes source = volume.HeaderWith(one.backup);
  before.resize(std::max(before.size(), source.size()));
  const HeaderCopy copy = CopyOf(source);
  CrashDisks disks(before);
  Restore(disks, copy);
  uint64_t points = 0;
  ForEachCrashPoint(disks, 4, 1, [&](const CrashPoint& point) {
    if (::testing::Test::HasFailure()) return;
    ExpectRepeatable(point, copy, one.backup);
    ++points;
  });
  EXPECT_GT(points, 6u);
}

Keyslots AllOfLuks1(const std::string& passphrase) {
  Keyslots all;
  for (unsigned id = 0; id < kLuks1Keyslots; ++id) {
    all[id] = passphrase + std::to_string(id);
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(
    Cases, HeaderReplacementCrashTest,
    ::testing::Values(
        Replacement{"Luks1WithoutFreeKeyslots", 1, AllOfLuks1("old"), 1,
                    AllOfLuks1("new"), false},
        Replacement{"Luks1OverOther", 1, {{0, "old"}}, 1, {{0, "new"}}, true},
        Replacement{"Luks2OverOther", 2, {{0, "old"}}, 2, {{0, "new"}}, true},
        Replacement{"Luks2OverLuks1", 1, {{0, "old"}}, 2, {{0, "new"}}, true},
        Replacement{"Luks1OverLuks2", 2, {{0, "old"}}, 1, {{0, "new"}}, true}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace pellucid::luks
