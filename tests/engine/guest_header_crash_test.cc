// Keyslot changes in a LUKS header among the guest data of a qcow2 image, where
// each write of the header becomes writes of clusters and tables: what a power
// cut leaves, with sectors reordered between flushes.

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/errors.h"
#include "engine/luks/format_header.h"
#include "engine/luks/keyslot_editor.h"
#include "engine/luks/unlock.h"
#include "engine/qcow2/qcow2_image.h"
#include "tests/engine/crash_device.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/recording_device.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

SecretBytes Secret(std::string_view text) {
  return SecretBytes(std::as_bytes(std::span(text)));
}

NewKeyslot Cheap(std::optional<unsigned> id = std::nullopt) {
  NewKeyslot wanted = {.id = id, .kdf = {}, .priority = {}};
  wanted.kdf.type = "pbkdf2";
  wanted.kdf.iterations = 1000;
  return wanted;
}

struct Case {
  const char* name;
  unsigned version;
  bool compressed;  // Nothing can be overwritten in its place.
};

void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

// A volume with the passphrases "old" (keyslot 0) and "other" (keyslot 1).
class GuestHeaderCrashTest : public ::testing::TestWithParam<Case> {
 protected:
  GuestHeaderCrashTest() : disks_(MakeImage()) {}

  Bytes MakeImage() {
    FormatOptions options;
    options.version = GetParam().version;
    options.kdf = Cheap().kdf;
    RecordingDevice volume(Bytes(HeaderBytes(options) + 4096));
    key_ = FormatHeader(volume, options, Secret("old"));
    KeyslotEditor({.device = &volume,
                   .offset = 0,
                   .area_bytes = volume.size(),
                   .file_name = "volume",
                   .place = Place::kInPlace})
        .Add(key_, Secret("other"), Cheap(1));
    const ScratchFolder folder;
    WriteHostFile(folder / "volume", volume.bytes());
    std::vector<std::string> convert = {"qemu-img", "convert", "-f",
                                        "raw",      "-O",      "qcow2"};
    if (GetParam().compressed) convert.push_back("-c");
    convert.insert(convert.end(), {folder / "volume", folder / "image"});
    RunTool(convert);
    return ReadHostFile(folder / "image");
  }

  static qcow2::Qcow2Image::Parts PartsOf(BlockDevice& file) {
    qcow2::Qcow2Image::Parts parts;
    parts.file_name = "image";
    parts.header = qcow2::ReadHeader(file, "image");
    parts.l2_cache_bytes = 1 << 16;
    parts.wipes_freed = true;
    return parts;
  }

  template <typename Edit>
  void EditKeyslots(Edit edit) {
    auto file = disks_.Open();
    qcow2::Qcow2Image::Parts parts = PartsOf(*file);
    parts.writable_file = std::move(file);
    qcow2::Qcow2Image image(std::move(parts));
    KeyslotEditor editor({.device = &image,
                          .offset = 0,
                          .area_bytes = image.size(),
                          .file_name = "image",
                          .place = Place::kInPlace});
    edit(editor);
  }

  static bool Opens(std::span<const std::byte> file,
                    const std::string& passphrase) {
    auto device =
        std::make_unique<MemoryDevice>(Bytes(file.begin(), file.end()));
    qcow2::Qcow2Image::Parts parts = PartsOf(*device);
    parts.file = std::move(device);
    qcow2::Qcow2Image image(std::move(parts));
    const LocatedHeader located =
        ReadLuksHeader(image, 0, image.size(), "image", Place::kInPlace);
    KnownPassphrases passphrases({passphrase});
    try {
      Unlock(located, "image", std::nullopt, passphrases);
      return true;
    } catch (const WrongPassphrase&) {
      return false;
    }
  }

  SecretBytes key_;
  CrashDisks disks_;
};

TEST_P(GuestHeaderCrashTest, AChangeLeavesTheOldOrTheNewPassphrase) {
  EditKeyslots([&](KeyslotEditor& editor) {
    editor.Change(0, key_, Secret("new"), Cheap());
  });
  bool old_opened = false;
  bool new_opened = false;
  ForEachCrashPoint(disks_, 20, 1, [&](const CrashPoint& point) {
    SCOPED_TRACE(point.description);
    const bool with_old = Opens(point.disks.front(), "old");
    const bool with_new = Opens(point.disks.front(), "new");
    ASSERT_TRUE(with_old || with_new);
    old_opened |= with_old;
    new_opened |= with_new;
  });
  EXPECT_TRUE(old_opened);
  EXPECT_TRUE(new_opened);
  EXPECT_FALSE(Opens(disks_.contents().front(), "old"));
  EXPECT_TRUE(Opens(disks_.contents().front(), "new"));
}

// Not only the new state: what was wiped cannot come back either.
TEST_P(GuestHeaderCrashTest, NothingIsLeftToTheNextFlush) {
  EditKeyslots([&](KeyslotEditor& editor) {
    editor.Change(0, key_, Secret("new"), Cheap());
  });
  EXPECT_EQ(disks_.events().back().kind, DiskEvent::Kind::kFlush);
}

TEST_P(GuestHeaderCrashTest, AnAdditionAndARemovalLeaveTheOtherPassphrase) {
  EditKeyslots([&](KeyslotEditor& editor) {
    editor.Add(key_, Secret("new"), Cheap());
    editor.Remove(0, /*force=*/false);
  });
  ForEachCrashPoint(disks_, 20, 1, [&](const CrashPoint& point) {
    SCOPED_TRACE(point.description);
    ASSERT_TRUE(Opens(point.disks.front(), "other"));
  });
  EXPECT_FALSE(Opens(disks_.contents().front(), "old"));
  EXPECT_TRUE(Opens(disks_.contents().front(), "new"));
}

INSTANTIATE_TEST_SUITE_P(Kinds, GuestHeaderCrashTest,
                         ::testing::Values(Case{"Luks1", 1, false},
                                           Case{"Luks2", 2, false},
                                           Case{"Luks1Compressed", 1, true},
                                           Case{"Luks2Compressed", 2, true}),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

}  // namespace
}  // namespace pellucid::luks
