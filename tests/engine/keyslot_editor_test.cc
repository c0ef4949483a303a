#include "engine/luks/keyslot_editor.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/luks/format_header.h"
#include "engine/luks/key_material.h"
#include "engine/luks/luks2_document.h"
#include "engine/luks/unlock.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/recording_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;
using ::testing::HasSubstr;

SecretBytes Secret(std::string_view text) {
  return SecretBytes(std::as_bytes(std::span(text)));
}

KdfCost FastCost(unsigned version, bool argon2 = false) {
  KdfCost cost;
  if (version == 1 || !argon2) {
    cost.type = "pbkdf2";
    cost.iterations = 1000;
  } else {
    cost.time = 4;
    cost.memory_kib = 64;
    cost.cpus = 1;
  }
  return cost;
}

bool Opens(BlockDevice& device, const std::string& passphrase,
           std::optional<unsigned> keyslot = std::nullopt) {
  const LocatedHeader located =
      ReadLuksHeader(device, 0, device.size(), "volume", Place::kInPlace);
  KnownPassphrases passphrases({passphrase});
  try {
    Unlock(located, "volume", keyslot, passphrases);
    return true;
  } catch (const WrongPassphrase&) {
    return false;
  }
}

bool Opens(const Bytes& disk, const std::string& passphrase) {
  MemoryDevice device(disk);
  return Opens(device, passphrase);
}

// A volume with the passphrases "old" (keyslot 0) and "other" (keyslot 1), in a
// file that cryptsetup can judge.
class KeyslotEditorTest : public ::testing::TestWithParam<unsigned> {
 protected:
  KeyslotEditorTest() : device_(NewVolume()) {
    WritableHeader header = Header();
    KeyslotEditor editor(header);
    NewKeyslot other = {.id = 1, .kdf = FastCost(version()), .priority = {}};
    editor.Add(key_, Secret("other"), other);
    device_.Forget();
  }

  static unsigned version() { return GetParam(); }

  WritableHeader Header() {
    return {.device = &device_,
            .offset = 0,
            .area_bytes = device_.size(),
            .file_name = "volume",
            .place = Place::kInPlace};
  }

  NewKeyslot Wanted(std::optional<unsigned> id = std::nullopt,
                    bool argon2 = false) const {
    return {.id = id, .kdf = FastCost(version(), argon2), .priority = {}};
  }

  Keyslot SlotOf(unsigned id) {
    const auto located =
        ReadLuksHeader(device_, 0, device_.size(), "volume", Place::kInPlace);
    const auto& slots = located.header.keyslots;
    return *std::ranges::find(slots, id, &Keyslot::id);
  }

  Bytes AreaOf(const Keyslot& slot) const {
    const auto begin =
        device_.bytes().begin() + static_cast<ptrdiff_t>(slot.area_offset);
    return {begin, begin + static_cast<ptrdiff_t>(slot.split_bytes())};
  }

  // No aligned 64 bytes of `material` are anywhere on the disk.
  void ExpectGone(const Bytes& material) const {
    for (size_t at = 0; at + 64 <= material.size(); at += 4096) {
      const auto piece = std::span(material).subspan(at, 64);
      EXPECT_EQ(std::search(device_.bytes().begin(), device_.bytes().end(),
                            piece.begin(), piece.end()),
                device_.bytes().end())
          << "byte " << at << " of the removed key material is still there";
    }
  }

  // Does cryptsetup open the volume with that passphrase?
  int CryptsetupOpens(const std::string& passphrase) {
    return CryptsetupOpens(device_.bytes(), passphrase);
  }
  int CryptsetupOpens(const Bytes& volume, const std::string& passphrase) {
    WriteHostFile(folder_ / "volume", volume);
    WriteHostFile(folder_ / "key", passphrase);
    RunTool({"cryptsetup", "luksDump", folder_ / "volume"});
    return RunProgram({"cryptsetup", "open", "--test-passphrase", "--key-file",
                       folder_ / "key", folder_ / "volume"})
        .exit_code;
  }

  Bytes NewVolume() {
    FormatOptions options;
    options.version = version();
    options.kdf = FastCost(version());
    RecordingDevice device(Bytes(HeaderBytes(options) + 4096));
    key_ = FormatHeader(device, options, Secret("old"));
    return device.bytes();
  }

  SecretBytes key_;
  RecordingDevice device_;
  ScratchFolder folder_;
};

constexpr int kCryptsetupWrongPassphrase = 2;

TEST_P(KeyslotEditorTest, AddedPassphraseOpensHereAndInCryptsetup) {
  KeyslotEditor editor(Header());
  EXPECT_EQ(editor.Add(key_, Secret("new"), Wanted()), 2U);
  EXPECT_EQ(editor.Add(key_, Secret("sixth"), Wanted(6)), 6U);
  for (const char* passphrase : {"old", "other", "new", "sixth"}) {
    EXPECT_TRUE(Opens(device_, passphrase)) << passphrase;
    EXPECT_EQ(CryptsetupOpens(passphrase), 0) << passphrase;
  }
  EXPECT_TRUE(Opens(device_, "sixth", 6));
  EXPECT_FALSE(Opens(device_, "wrong"));
}

TEST_P(KeyslotEditorTest, SlotThatCryptsetupAddsOpensAndGoes) {
  WriteHostFile(folder_ / "volume", device_.bytes());
  WriteHostFile(folder_ / "old", "old");
  WriteHostFile(folder_ / "new", "from cryptsetup");
  RunTool({"cryptsetup", "luksAddKey", "--key-file", folder_ / "old", "--pbkdf",
           "pbkdf2", "--pbkdf-force-iterations", "1000", folder_ / "volume",
           folder_ / "new"});
  RecordingDevice changed(ReadHostFile(folder_ / "volume"));
  EXPECT_TRUE(Opens(changed, "from cryptsetup"));
  WritableHeader header = Header();
  header.device = &changed;
  KeyslotEditor(header).Remove(2, /*force=*/false);
  EXPECT_FALSE(Opens(changed, "from cryptsetup"));
  EXPECT_TRUE(Opens(changed, "old"));
}

TEST_P(KeyslotEditorTest, AdditionCutOffAnywhereLeavesTheOldPassphrases) {
  for (const unsigned id : {2U, 6U, 7U}) {
    const Bytes before = device_.bytes();
    device_.Forget();
    const std::string added = fmt::format("new {}", id);
    KeyslotEditor(Header()).Add(key_, Secret(added), Wanted(id));
    AtEachPowerCut(before, device_.events(), [&](const Bytes& disk) {
      ASSERT_TRUE(Opens(disk, "old"));
      ASSERT_TRUE(Opens(disk, "other"));
    });
    EXPECT_TRUE(Opens(device_, added));
  }
}

TEST_P(KeyslotEditorTest, ChangeCutOffAnywhereLeavesTheOldOrTheNewPassphrase) {
  const Bytes before = device_.bytes();
  KeyslotEditor(Header()).Change(0, key_, Secret("new"), Wanted());
  bool old_opened = false;
  bool new_opened = false;
  AtEachPowerCut(before, device_.events(), [&](const Bytes& disk) {
    const bool with_old = Opens(disk, "old");
    const bool with_new = Opens(disk, "new");
    ASSERT_TRUE(with_old || with_new);
    ASSERT_TRUE(Opens(disk, "other"));
    old_opened |= with_old;
    new_opened |= with_new;
  });
  EXPECT_TRUE(old_opened);
  EXPECT_TRUE(new_opened);
  EXPECT_FALSE(Opens(device_, "old"));
  EXPECT_EQ(CryptsetupOpens("old"), kCryptsetupWrongPassphrase);
  EXPECT_EQ(CryptsetupOpens("new"), 0);
}

TEST_P(KeyslotEditorTest,
       RemovalCutOffAnywhereLeavesTheOthersAndCanBeRepeated) {
  const Bytes before = device_.bytes();
  KeyslotEditor(Header()).Remove(0, /*force=*/false);
  AtEachPowerCut(before, device_.events(),
                 [&](const Bytes& disk) { ASSERT_TRUE(Opens(disk, "other")); });
  // Cut off between the noise and the header.
  RecordingDevice wiped(before);
  wiped.Write(device_.events().front().offset,
              device_.events().front().written);
  WritableHeader header = Header();
  header.device = &wiped;
  KeyslotEditor(header).Remove(0, /*force=*/false);
  EXPECT_TRUE(Opens(wiped, "other"));
}

TEST_P(KeyslotEditorTest, RemovedKeyMaterialIsNowhereOnDisk) {
  const Keyslot slot = SlotOf(0);
  const Bytes material = AreaOf(slot);
  KeyslotEditor(Header()).Remove(0, /*force=*/false);
  ExpectGone(material);
  EXPECT_FALSE(Opens(device_, "old"));
  EXPECT_EQ(CryptsetupOpens("old"), kCryptsetupWrongPassphrase);
  EXPECT_EQ(CryptsetupOpens("other"), 0);
  // Noise, before the header lets go of it.
  ASSERT_EQ(device_.events().front().offset, slot.area_offset);
  ASSERT_TRUE(device_.events()[1].written.empty());
}

TEST_P(KeyslotEditorTest, ChangedKeyMaterialIsNowhereOnDisk) {
  const Bytes material = AreaOf(SlotOf(0));
  KeyslotEditor(Header()).Change(0, key_, Secret("new"), Wanted());
  ExpectGone(material);
}

TEST_P(KeyslotEditorTest, LastKeyslotNeedsForce) {
  KeyslotEditor editor(Header());
  editor.Remove(1, /*force=*/false);
  EXPECT_THAT(ThrownText<UsageError>([&] { editor.Remove(0, false); }),
              HasSubstr("the last one"));
  EXPECT_TRUE(Opens(device_, "old"));
  editor.Remove(0, /*force=*/true);
  EXPECT_THAT(ThrownText<WrongPassphrase>([&] {
                KnownPassphrases passphrases({"old"});
                Unlock(editor.located(), "volume", std::nullopt, passphrases);
              }),
              HasSubstr("no keyslot is in use"));
}

TEST_P(KeyslotEditorTest, KeyslotNumbersAreChecked) {
  KeyslotEditor editor(Header());
  const auto add = [&](unsigned id) {
    return ThrownText<UsageError>(
        [&] { editor.Add(key_, Secret("new"), Wanted(id)); });
  };
  EXPECT_THAT(add(0), HasSubstr("keyslot 0 is in use"));
  EXPECT_THAT(add(32), HasSubstr("not 32"));
  EXPECT_THAT(ThrownText<UsageError>([&] { editor.Remove(5, true); }),
              HasSubstr("keyslot 5 is not in use"));
  EXPECT_TRUE(device_.events().empty());
}

TEST_P(KeyslotEditorTest, FullTableIsRefusedAndNothingIsWritten) {
  KeyslotEditor editor(Header());
  const unsigned most = version() == 1 ? 8 : 32;
  for (unsigned id = 2; id < most; ++id) {
    EXPECT_EQ(editor.Add(key_, Secret("more"), Wanted()), id);
  }
  device_.Forget();
  EXPECT_THAT(ThrownText<UsageError>(
                  [&] { editor.Add(key_, Secret("new"), Wanted()); }),
              HasSubstr("keyslots are in use; remove one first"));
  EXPECT_TRUE(device_.events().empty());
  EXPECT_EQ(CryptsetupOpens("more"), 0);
}

TEST_P(KeyslotEditorTest, MaterialThatDoesNotReadBackIsNotUsed) {
  const Keyslot slot = SlotOf(1);
  // Behind the area of keyslot 1 comes the next that is free.
  const uint64_t next = slot.area_offset + slot.area_size;
  device_.SpoilReads(next + 8192, next + 8193);
  KeyslotEditor editor(Header());
  EXPECT_THAT(
      ThrownText<IoError>([&] { editor.Add(key_, Secret("new"), Wanted()); }),
      HasSubstr("does not read back"));
  EXPECT_EQ(editor.located().header.keyslots.size(), 2U);
  EXPECT_TRUE(Opens(device_, "old"));
}

TEST_P(KeyslotEditorTest, CostThatIsTooLowIsRefused) {
  KeyslotEditor editor(Header());
  NewKeyslot wanted = Wanted();
  wanted.kdf.iterations = 999;
  EXPECT_THAT(
      ThrownText<UsageError>([&] { editor.Add(key_, Secret("new"), wanted); }),
      HasSubstr("1000"));
}

INSTANTIATE_TEST_SUITE_P(Versions, KeyslotEditorTest, ::testing::Values(1, 2),
                         [](const auto& info) {
                           return fmt::format("Luks{}", info.param);
                         });

TEST(Luks1KeyslotEditorTest, RefusesWhatOnlyLuks2Has) {
  FormatOptions options;
  options.version = 1;
  options.kdf = FastCost(1);
  RecordingDevice device(Bytes(HeaderBytes(options)));
  const SecretBytes key = FormatHeader(device, options, Secret("old"));
  KeyslotEditor editor({.device = &device,
                        .offset = 0,
                        .area_bytes = device.size(),
                        .file_name = "volume",
                        .place = Place::kInPlace});
  NewKeyslot argon2 = {.id = {}, .kdf = FastCost(2, true), .priority = {}};
  EXPECT_THAT(
      ThrownText<UsageError>([&] { editor.Add(key, Secret("new"), argon2); }),
      HasSubstr("LUKS1 has pbkdf2"));
  NewKeyslot preferred = {
      .id = {}, .kdf = FastCost(1), .priority = Priority::kPrefer};
  EXPECT_THAT(ThrownText<UsageError>(
                  [&] { editor.Add(key, Secret("new"), preferred); }),
              HasSubstr("priority"));
}

class Luks2KeyslotEditorTest : public KeyslotEditorTest {
 protected:
  // Replaces the metadata of both copies.
  void Edit(const std::function<void(Luks2Json&)>& edit) {
    Luks2Document document(Header());
    Luks2Json json = document.json();
    edit(json);
    document.Commit(json);
    device_.Forget();
  }

  Luks2Json Metadata() { return Luks2Document(Header()).json(); }
};

TEST_P(Luks2KeyslotEditorTest, Argon2IsTakenByCryptsetup) {
  KeyslotEditor(Header()).Add(key_, Secret("new"), Wanted({}, true));
  EXPECT_EQ(SlotOf(2).kdf.type, "argon2id");
  EXPECT_TRUE(Opens(device_, "new"));
  EXPECT_EQ(CryptsetupOpens("new"), 0);
}

TEST_P(Luks2KeyslotEditorTest, UnknownFieldsAndTokensAreKept) {
  Edit([](Luks2Json& json) {
    json["tokens"]["3"] = {
        {"type", "some-token"}, {"keyslots", {"0", "1"}}, {"extra", 7}};
    json["keyslots"]["0"]["note"] = "kept";
    json["config"]["flags"] = {"allow-discards"};
    json["unheard_of"] = {{"a", {1, 2, 3}}};
  });
  KeyslotEditor editor(Header());
  NewKeyslot wanted = Wanted();
  wanted.priority = Priority::kPrefer;
  editor.Change(0, key_, Secret("new"), wanted);
  editor.Remove(1, /*force=*/false);
  const Luks2Json json = Metadata();
  EXPECT_EQ(json["tokens"]["3"]["keyslots"], Luks2Json({"0"}));
  EXPECT_EQ(json["tokens"]["3"]["extra"], 7);
  EXPECT_EQ(json["keyslots"]["0"]["note"], "kept");
  EXPECT_EQ(json["keyslots"]["0"]["priority"], 2);
  EXPECT_EQ(json["config"]["flags"], Luks2Json({"allow-discards"}));
  EXPECT_EQ(json["unheard_of"]["a"], Luks2Json({1, 2, 3}));
  EXPECT_EQ(json["digests"]["0"]["keyslots"], Luks2Json({"0"}));
  EXPECT_FALSE(json["keyslots"].contains("1"));
}

TEST_P(Luks2KeyslotEditorTest, KeyslotOfAnotherKeyCanBeRemovedButNotChanged) {
  WriteHostFile(folder_ / "volume", device_.bytes());
  WriteHostFile(folder_ / "unbound", "unbound");
  RunTool({"cryptsetup", "luksAddKey", "--unbound", "--key-slot", "5",
           "--key-size", "256", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
           "1000", folder_ / "volume", folder_ / "unbound"});
  RecordingDevice changed(ReadHostFile(folder_ / "volume"));
  WritableHeader header = Header();
  header.device = &changed;
  KeyslotEditor editor(header);
  EXPECT_THAT(ThrownText<UsageError>(
                  [&] { editor.Change(5, key_, Secret("new"), Wanted()); }),
              HasSubstr("keyslot 5 is unbound"));
  EXPECT_TRUE(changed.events().empty());
  // It is not counted among those that open the volume either.
  editor.Remove(1, /*force=*/false);
  EXPECT_THAT(ThrownText<UsageError>([&] { editor.Remove(0, false); }),
              HasSubstr("the last one"));
  editor.Remove(5, /*force=*/false);
  EXPECT_TRUE(Opens(changed, "old"));
  EXPECT_EQ(CryptsetupOpens(changed.bytes(), "old"), 0);
}

TEST_P(Luks2KeyslotEditorTest, PriorityIsKeptByAChange) {
  Edit([](Luks2Json& json) { json["keyslots"]["0"]["priority"] = 0; });
  KeyslotEditor(Header()).Change(0, key_, Secret("new"), Wanted());
  EXPECT_EQ(SlotOf(0).priority, Priority::kIgnore);
  EXPECT_TRUE(Opens(device_, "new", 0));
}

TEST_P(Luks2KeyslotEditorTest, OnlyOneCopyIsInFlightAndNeverTheLastValidOne) {
  const Bytes intact = device_.bytes();
  for (const uint64_t damaged : {uint64_t{0}, uint64_t{16384}}) {
    Bytes before = intact;
    before[damaged + 5000] ^= std::byte{1};
    RecordingDevice device(before);
    WritableHeader header = Header();
    header.device = &device;
    KeyslotEditor(header).Add(key_, Secret("new"), Wanted());
    AtEachPowerCut(before, device.events(),
                   [&](const Bytes& disk) { ASSERT_TRUE(Opens(disk, "old")); });
    // Each copy is followed by a flush, the damaged one comes first.
    std::vector<uint64_t> copies;
    for (size_t i = 0; i < device.events().size(); ++i) {
      const auto& event = device.events()[i];
      if (event.written.size() != 16384) continue;
      copies.push_back(event.offset);
      ASSERT_TRUE(device.events()[i + 1].written.empty());
    }
    EXPECT_EQ(copies,
              (std::vector<uint64_t>{damaged, damaged == 0 ? 16384U : 0U}));
  }
}

TEST_P(Luks2KeyslotEditorTest, FullAreaIsRefusedWithARemedy) {
  const uint64_t area = SlotOf(0).area_size;
  Edit([&](Luks2Json& json) {
    json["config"]["keyslots_size"] = std::to_string(2 * area + 4096);
  });
  KeyslotEditor editor(Header());
  EXPECT_THAT(ThrownText<UsageError>(
                  [&] { editor.Change(0, key_, Secret("new"), Wanted()); }),
              HasSubstr("remove a keyslot first"));
  EXPECT_TRUE(device_.events().empty());
}

TEST_P(Luks2KeyslotEditorTest, MetadataThatDoesNotFitIsRefusedBeforeAnyWrite) {
  Edit([](Luks2Json& json) {
    json["padding"] = "";
    json["padding"] = std::string(12287 - json.dump().size(), 'x');
  });
  KeyslotEditor editor(Header());
  EXPECT_THAT(ThrownText<UsageError>(
                  [&] { editor.Add(key_, Secret("new"), Wanted()); }),
              HasSubstr("has room for 12288"));
  EXPECT_TRUE(device_.events().empty());
  EXPECT_TRUE(Opens(device_, "old"));
}

TEST_P(Luks2KeyslotEditorTest, GapOfARemovedKeyslotIsUsedAgain) {
  KeyslotEditor editor(Header());
  editor.Add(key_, Secret("third"), Wanted());
  const uint64_t gap = SlotOf(1).area_offset;
  editor.Remove(1, /*force=*/false);
  EXPECT_EQ(editor.Add(key_, Secret("new"), Wanted()), 1U);
  EXPECT_EQ(SlotOf(1).area_offset, gap);
}

TEST_P(Luks2KeyslotEditorTest, AreaInsideThePayloadIsCorrupt) {
  EXPECT_THAT(ThrownText<CorruptImage>([&] {
                Edit([&](Luks2Json& json) {
                  json["segments"]["0"]["offset"] = "65536";
                });
              }),
              HasSubstr("lies in segment 0"));
}

TEST_P(Luks2KeyslotEditorTest, RepairMakesBothCopiesAlike) {
  const Bytes intact = device_.bytes();
  for (const uint64_t damaged : {uint64_t{0}, uint64_t{16384}}) {
    Bytes before = intact;
    before[damaged + 100] ^= std::byte{1};
    RecordingDevice device(before);
    WritableHeader header = Header();
    header.device = &device;
    EXPECT_TRUE(Luks2Document(header).Repair());
    EXPECT_TRUE(
        ReadLuks2Copies(device, 0, device.size(), "v").warnings.empty());
    EXPECT_FALSE(Luks2Document(header).Repair());
    AtEachPowerCut(before, device.events(),
                   [&](const Bytes& disk) { ASSERT_TRUE(Opens(disk, "old")); });
  }
}

INSTANTIATE_TEST_SUITE_P(Version, Luks2KeyslotEditorTest, ::testing::Values(2),
                         [](const auto&) { return "Luks2"; });

}  // namespace
}  // namespace pellucid::luks
