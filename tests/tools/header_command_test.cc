// `pellucid header` on every kind of container.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/luks_volumes_fixture.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

ProgramResult RunPellucid(Words words) {
  words.insert(words.begin(), PELLUCID_PROGRAM);
  return RunProgram(words);
}

void Overwrite(const fs::path& file, uint64_t offset, const Bytes& bytes) {
  Bytes content = ReadHostFile(file);
  std::ranges::copy(bytes, content.begin() + static_cast<ptrdiff_t>(offset));
  WriteHostFile(file, content);
}

class HeaderCommandTest : public ::testing::TestWithParam<Container> {
 protected:
  HeaderCommandTest() { volume_.Make(GetParam()); }

  std::string File(const std::string& name) const {
    return volume_.folder() / name;
  }

  // `pellucid header ACTION` of the volume and a file.
  ProgramResult Header(const std::string& action, const std::string& file,
                       const Words& options = {}) const {
    Words words = {"header", action};
    for (const std::string& operand : volume_.Operands()) {
      words.push_back(operand);
    }
    words.push_back(file);
    words.insert(words.end(), options.begin(), options.end());
    return RunPellucid(words);
  }

  void MustSucceed(const ProgramResult& result) const {
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }

  void ChangePassphrase() const {
    Words change = {"key",
                    "change",
                    "--key-file",
                    volume_.KeyFile("old"),
                    "--new-key-file",
                    volume_.KeyFile("new")};
    for (const std::string& word : volume_.Cheap()) change.push_back(word);
    volume_.MustRun(change);
  }

  // A volume with another UUID but the same layout. Those that QEMU makes are
  // the same each time.
  static void MakeOther(LuksVolumes& other) {
    other.Make(GetParam() == Container::kQcow2      ? Container::kRawLuks1
               : GetParam() == Container::kRawLuks1 ? Container::kQcow2
                                                    : GetParam());
  }

  LuksVolumes volume_;
};

TEST_P(HeaderCommandTest, BackupBringsTheOldPassphraseBack) {
  MustSucceed(Header("backup", File("backup")));
  ChangePassphrase();
  ASSERT_FALSE(volume_.Opens("old"));
  MustSucceed(Header("restore", File("backup")));
  EXPECT_TRUE(volume_.Opens("old"));
  EXPECT_FALSE(volume_.Opens("new"));
}

TEST_P(HeaderCommandTest, BackupIsPrivateAndCryptsetupTakesIt) {
  MustSucceed(Header("backup", File("backup")));
  struct stat stat = {};
  ASSERT_EQ(::stat(File("backup").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_mode & 07777, 0600U);
  RunTool({"cryptsetup", "luksDump", File("backup")});
  RunTool({"cryptsetup", "open", "--test-passphrase", "--key-file",
           volume_.KeyFile("old"), File("backup")});
  if (GetParam() == Container::kQcow2) return;
  ChangePassphrase();
  RunTool({"cryptsetup", "-q", "luksHeaderRestore", "--header-backup-file",
           File("backup"), volume_.HeaderFile()});
  EXPECT_TRUE(volume_.Opens("old"));
}

TEST_P(HeaderCommandTest, BackupHasNothingOfRemovedKeyslots) {
  ChangePassphrase();
  MustSucceed(Header("backup", File("backup")));
  const Bytes backup = ReadHostFile(File("backup"));
  // The area of keyslot 0 of that time is a hole now.
  const bool luks2 = LuksVersionOf(GetParam()) == 2;
  const uint64_t area = luks2 ? 32768 : 4096;
  const auto old_area = std::span(backup).subspan(area, 128000);
  EXPECT_TRUE(std::ranges::all_of(
      old_area, [](std::byte b) { return b == std::byte{0}; }));
}

TEST_P(HeaderCommandTest, ExistingFilesAreKept) {
  WriteHostFile(File("backup"), "precious");
  const ProgramResult refused = Header("backup", File("backup"));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_EQ(fs::file_size(File("backup")), 8U);
  // Nor does a backup that cannot be completed cost the old one.
  Words limited = {"sh", "-c", "ulimit -f 8; exec \"$0\" \"$@\""};
  limited.insert(limited.end(), {PELLUCID_PROGRAM, "header", "backup"});
  for (const std::string& operand : volume_.Operands()) {
    limited.push_back(operand);
  }
  limited.insert(limited.end(), {File("backup"), "--force"});
  EXPECT_EQ(RunProgram(limited).exit_code, 7);
  EXPECT_EQ(fs::file_size(File("backup")), 8U);
  MustSucceed(Header("backup", File("backup"), {"--force"}));
  // Not even by force: the image itself.
  const Bytes before = ReadHostFile(volume_.HeaderFile());
  EXPECT_EQ(Header("backup", volume_.HeaderFile(), {"--force"}).exit_code, 2);
  EXPECT_EQ(ReadHostFile(volume_.HeaderFile()), before);
}

TEST_P(HeaderCommandTest, HeaderOfAnotherVolumeNeedsForce) {
  LuksVolumes other;
  MakeOther(other);
  Words backup = {"header", "backup"};
  for (const std::string& operand : other.Operands()) backup.push_back(operand);
  backup.push_back(File("foreign"));
  MustSucceed(RunPellucid(backup));
  const Bytes before = ReadHostFile(volume_.HeaderFile());
  const ProgramResult refused = Header("restore", File("foreign"));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("UUID"));
  EXPECT_EQ(ReadHostFile(volume_.HeaderFile()), before);
  MustSucceed(Header("restore", File("foreign"), {"--force"}));
  EXPECT_NE(ReadHostFile(volume_.HeaderFile()), before);
}

// As an old backup after a reencryption: the same UUID, another volume key.
TEST_P(HeaderCommandTest, HeaderOfAnotherVolumeKeyNeedsForce) {
  if (LuksVersionOf(GetParam()) == 1) {
    // One bit of the digest (byte 112) is another key.
    MustSucceed(Header("backup", File("backup")));
    Bytes backup = ReadHostFile(File("backup"));
    backup[112] ^= std::byte{1};
    WriteHostFile(File("backup"), backup);
  } else {
    const std::string uuid = nlohmann::json::parse(
        volume_.MustRun({"key", "list", "--json"}))["uuid"];
    MustSucceed(
        RunPellucid({"create", "--format", "raw", "--uuid", uuid, "--key-file",
                     volume_.KeyFile("old"), "--kdf", "pbkdf2",
                     "--pbkdf2-iterations", "1000", File("backup"), "1M"}));
  }
  const Bytes before = ReadHostFile(volume_.HeaderFile());
  const ProgramResult refused = Header("restore", File("backup"));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("for another volume key"));
  EXPECT_EQ(ReadHostFile(volume_.HeaderFile()), before);
}

TEST_P(HeaderCommandTest, WhatIsNoHeaderIsNotRestored) {
  WriteHostFile(File("noise"), Noise(1 << 20, 9));
  EXPECT_EQ(Header("restore", File("noise"), {"--force"}).exit_code, 2);
  EXPECT_EQ(Header("restore", File("missing")).exit_code, 7);
  EXPECT_TRUE(volume_.Opens("old"));
}

TEST_P(HeaderCommandTest, WordsAreChecked) {
  EXPECT_EQ(Header("steal", File("x")).exit_code, 2);
  EXPECT_EQ(Header("repair", File("x")).exit_code, 2);
  const ProgramResult missing =
      RunPellucid({"header", "backup", volume_.HeaderFile()});
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_THAT(missing.err, HasSubstr("FILE is missing"));
}

TEST_P(HeaderCommandTest, IntactHeaderNeedsNoRepair) {
  const Bytes before = ReadHostFile(volume_.HeaderFile());
  EXPECT_THAT(volume_.MustRun({"header", "repair"}),
              HasSubstr("needs no repair"));
  EXPECT_EQ(ReadHostFile(volume_.HeaderFile()), before);
}

INSTANTIATE_TEST_SUITE_P(
    Containers, HeaderCommandTest,
    ::testing::Values(Container::kRawLuks1, Container::kRawLuks2,
                      Container::kDetachedLuks1, Container::kDetachedLuks2,
                      Container::kQcow2),
    [](const auto& info) { return ContainerName(info.param); });

// In place, in a raw file.
class RawHeaderCommandTest : public HeaderCommandTest {};

TEST_P(RawHeaderCommandTest, DetachedHeaderOpensTheSamePayload) {
  const std::string plain =
      volume_.MustRun({"export", "--key-file", volume_.KeyFile("old"), "--hash",
                       "sha256", "--force", "/dev/null"});
  MustSucceed(Header("detach", File("header")));
  // The header in the image is gone; the detached one does it alone.
  Overwrite(File("image"), 0, Bytes(1 << 20));
  const Words by_header = {"export",
                           "--header",
                           File("header"),
                           "--key-file",
                           volume_.KeyFile("old"),
                           "--hash",
                           "sha256",
                           "--force",
                           File("image"),
                           "/dev/null"};
  EXPECT_EQ(RunPellucid(by_header).out, plain);
  // And goes back where it was.
  MustSucceed(Header("attach", File("header")));
  EXPECT_TRUE(volume_.Opens("old"));
}

TEST_P(RawHeaderCommandTest, OverwrittenHeaderIsRestoredByForceOnly) {
  MustSucceed(Header("backup", File("backup")));
  Overwrite(File("image"), 0, Noise(1 << 20, 5));
  const ProgramResult refused = Header("restore", File("backup"));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("neither zeros nor"));
  MustSucceed(Header("restore", File("backup"), {"--force"}));
  EXPECT_TRUE(volume_.Opens("old"));
}

TEST_P(RawHeaderCommandTest, HeaderForDetachedUseHasNoRoomInTheImage) {
  LuksVolumes detached;
  detached.Make(LuksVersionOf(GetParam()) == 1 ? Container::kDetachedLuks1
                                               : Container::kDetachedLuks2);
  const Bytes before = ReadHostFile(File("image"));
  for (const char* action : {"restore", "attach"}) {
    const ProgramResult refused =
        Header(action, detached.HeaderFile(), {"--force"});
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_THAT(refused.err, HasSubstr("made for detached use"));
  }
  EXPECT_EQ(ReadHostFile(File("image")), before);
}

// Somebody's file that was named by mistake.
TEST_P(RawHeaderCommandTest, WhatIsRefusedAsATargetKeepsItsSize) {
  MustSucceed(Header("backup", File("backup")));
  const Bytes letter = Noise(5000, 3);
  WriteHostFile(File("letter"), letter);
  const ProgramResult refused =
      RunPellucid({"header", "restore", "--header", File("letter"),
                   File("image"), File("backup")});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("neither zeros nor"));
  EXPECT_EQ(ReadHostFile(File("letter")), letter);
  // An empty file is a place for a header.
  WriteHostFile(File("letter"), "");
  MustSucceed(RunPellucid({"header", "restore", "--header", File("letter"),
                           File("image"), File("backup")}));
  EXPECT_EQ(fs::file_size(File("letter")), fs::file_size(File("backup")));
}

INSTANTIATE_TEST_SUITE_P(Raw, RawHeaderCommandTest,
                         ::testing::Values(Container::kRawLuks1,
                                           Container::kRawLuks2),
                         [](const auto& info) {
                           return ContainerName(info.param);
                         });

class Luks2HeaderCommandTest : public HeaderCommandTest {};

TEST_P(Luks2HeaderCommandTest, DamagedCopyIsRepairedOnRequest) {
  for (const uint64_t copy : {0U, 16384U}) {
    Overwrite(volume_.HeaderFile(), copy + 4200, Noise(16, copy));
    const Bytes damaged = ReadHostFile(volume_.HeaderFile());
    // Reading repairs nothing. (Cryptsetup would.)
    volume_.MustRun({"key", "list"});
    EXPECT_EQ(ReadHostFile(volume_.HeaderFile()), damaged);
    EXPECT_THAT(volume_.MustRun({"header", "repair"}),
                HasSubstr("alike again"));
    EXPECT_NE(ReadHostFile(volume_.HeaderFile()), damaged);
    EXPECT_THAT(volume_.MustRun({"header", "repair"}),
                HasSubstr("needs no repair"));
    EXPECT_TRUE(volume_.Opens("old"));
  }
}

TEST_P(Luks2HeaderCommandTest, BeginningThatBecameSomethingElseNeedsForce) {
  // As after a stray partition table.
  Bytes sector(512);
  sector[510] = std::byte{0x55};
  sector[511] = std::byte{0xaa};
  Overwrite(volume_.HeaderFile(), 0, sector);
  const ProgramResult refused = volume_.Pellucid({"header", "repair"});
  EXPECT_EQ(refused.exit_code, 2);
  volume_.MustRun({"header", "repair", "--force"});
  EXPECT_TRUE(volume_.Opens("old"));
}

INSTANTIATE_TEST_SUITE_P(Luks2, Luks2HeaderCommandTest,
                         ::testing::Values(Container::kRawLuks2,
                                           Container::kDetachedLuks2),
                         [](const auto& info) {
                           return ContainerName(info.param);
                         });

// qcow2 images with an embedded header.
class EmbeddedHeaderCommandTest : public ::testing::Test {
 protected:
  std::string File(const std::string& name) const { return folder_ / name; }

  void Create(const std::string& more_options) const {
    RunQemuImg(
        {"create", "-f", "qcow2", "--object", "secret,id=s,data=old", "-o",
         "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10" +
             more_options,
         File("disk.qcow2"), "1M"});
    WriteHostFile(folder_ / "key", "old");
  }

  void Qemu(const std::string& command) const {
    RunTool({"qemu-io", "--object", "secret,id=s,data=old", "--image-opts",
             "driver=qcow2,encrypt.key-secret=s,file.filename=" +
                 File("disk.qcow2"),
             "-c", command});
  }

  ScratchFolder folder_;
};

TEST_F(EmbeddedHeaderCommandTest, BackupKeepsTheBackingFileWhateverItsName) {
  const std::string content(1 << 20, 'b');
  WriteHostFile(File("base"), content);
  Create(",backing_fmt=raw,backing_file=file:" + File("base"));
  const ProgramResult result = RunPellucid(
      {"header", "backup", "--force", File("disk.qcow2"), File("base")});
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_THAT(result.err, HasSubstr("belongs to the image"));
  EXPECT_EQ(RunTool({"cat", File("base")}), content);
}

TEST_F(EmbeddedHeaderCommandTest, DetachExplainsWhyItCannot) {
  Create("");
  const ProgramResult result =
      RunPellucid({"header", "detach", File("disk.qcow2"), File("header")});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.err, HasSubstr("header backup"));
  EXPECT_FALSE(fs::exists(File("header")));
}

TEST_F(EmbeddedHeaderCommandTest, DetachedHeaderAndRawDataFileWorkAlone) {
  Create(",data_file=" + File("data.raw") + ",data_file_raw=on");
  Qemu("write -P 42 0 600k");
  const ProgramResult whole = RunPellucid(
      {"header", "detach", "--force", File("disk.qcow2"), File("header")});
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_EQ(whole.err, "");
  const ProgramResult hash =
      RunPellucid({"export", "--key-file", File("key"), "--hash", "sha256",
                   File("disk.qcow2"), File("plain")});
  ASSERT_EQ(hash.exit_code, 0) << hash.err;
  // Anywhere: without the qcow2 image, and for cryptsetup.
  fs::remove(File("disk.qcow2"));
  EXPECT_EQ(RunPellucid({"export", "--header", File("header"), "--key-file",
                         File("key"), "--hash", "sha256", "--force",
                         File("data.raw"), "/dev/null"})
                .out.substr(0, 64),
            hash.out.substr(0, 64));
  EXPECT_THAT(RunTool({"cryptsetup", "luksDump", File("header")}),
              HasSubstr("Payload offset:\t0"));
  RunTool({"cryptsetup", "open", "--test-passphrase", "--key-file", File("key"),
           File("header")});
}

TEST_F(EmbeddedHeaderCommandTest, HolesThatWouldBecomeNoiseAreToldOf) {
  // As older QEMU made raw data files: clusters may be unallocated.
  Create(",data_file=" + File("data.raw"));
  Qemu("write -P 42 0 128k");
  const uint64_t autoclear_features = 88;
  Bytes raw_external_data(8);
  raw_external_data[7] = std::byte{2};
  Overwrite(File("disk.qcow2"), autoclear_features, raw_external_data);
  const ProgramResult result =
      RunPellucid({"header", "detach", File("disk.qcow2"), File("header")});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("read as noise"));
}

TEST_F(EmbeddedHeaderCommandTest, Luks2IsNotEmbedded) {
  Create("");
  LuksVolumes luks2;
  luks2.Make(Container::kRawLuks2);
  const ProgramResult result = RunPellucid(
      {"header", "restore", "--force", File("disk.qcow2"), luks2.HeaderFile()});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.err, HasSubstr("only a LUKS1 header"));
}

}  // namespace
}  // namespace pellucid
