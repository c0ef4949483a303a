// `pellucid key` on every kind of container, with cryptsetup and QEMU as
// judges.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/tools/luks_volumes_fixture.h"

namespace pellucid {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

using Words = std::vector<std::string>;

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class KeyCommandTest : public ::testing::TestWithParam<Container> {
 protected:
  KeyCommandTest() { volume_.Make(GetParam()); }

  bool is_luks2() const { return LuksVersionOf(GetParam()) == 2; }

  Words Add(const std::string& existing, const std::string& passphrase) const {
    return Words{"key",
                 "add",
                 "--key-file",
                 volume_.KeyFile(existing),
                 "--new-key-file",
                 volume_.KeyFile(passphrase)} +
           volume_.Cheap();
  }

  LuksVolumes volume_;
};

TEST_P(KeyCommandTest, AddedPassphraseOpensEverywhere) {
  EXPECT_THAT(volume_.MustRun(Add("old", "new")), HasSubstr("keyslot 1 added"));
  EXPECT_TRUE(volume_.Opens("old"));
  EXPECT_TRUE(volume_.Opens("new"));
  EXPECT_FALSE(volume_.Opens("wrong"));
}

TEST_P(KeyCommandTest, PassphraseAddedByOthersOpensAndIsRemoved) {
  volume_.AddByOthers("old", "theirs");
  EXPECT_TRUE(volume_.Opens("theirs"));
  EXPECT_THAT(volume_.MustRun(
                  {"key", "remove", "--key-file", volume_.KeyFile("theirs")}),
              HasSubstr("keyslot 1 removed"));
  EXPECT_FALSE(volume_.Opens("theirs"));
  EXPECT_TRUE(volume_.Opens("old"));
  volume_.AddByOthers("old", "again");
  EXPECT_TRUE(volume_.Opens("again"));
}

TEST_P(KeyCommandTest, ChangedPassphraseReplacesTheOldOne) {
  const Words change = Words{"key",
                             "change",
                             "--key-file",
                             volume_.KeyFile("old"),
                             "--new-key-file",
                             volume_.KeyFile("new")} +
                       volume_.Cheap();
  const std::string said = volume_.MustRun(change);
  EXPECT_THAT(said,
              HasSubstr(is_luks2() ? "keyslot 0 changed"
                                   : "keyslot 1 added instead of 0, which is"));
  EXPECT_FALSE(volume_.Opens("old"));
  EXPECT_TRUE(volume_.Opens("new"));
  EXPECT_EQ(volume_.Pellucid(change).exit_code, 3);
}

TEST_P(KeyCommandTest, LastKeyslotNeedsForce) {
  const Words remove = {"key", "remove", "--key-file", volume_.KeyFile("old")};
  const ProgramResult refused = volume_.Pellucid(remove);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_TRUE(volume_.Opens("old"));
  volume_.MustRun(remove + Words{"--force"});
  EXPECT_FALSE(volume_.Opens("old"));
}

TEST_P(KeyCommandTest, KeyslotCanBeNamed) {
  volume_.MustRun(Add("old", "sixth") + Words{"--keyslot", "6", "--quiet"});
  EXPECT_TRUE(volume_.Opens("sixth"));
  const ProgramResult taken =
      volume_.Pellucid(Add("old", "more") + Words{"--keyslot", "6"});
  EXPECT_EQ(taken.exit_code, 2);
  EXPECT_THAT(taken.err, HasSubstr("keyslot 6 is in use"));
  // The passphrase must be that of the keyslot which changes.
  const ProgramResult other = volume_.Pellucid(
      Words{"key", "change", "--keyslot", "6", "--key-file",
            volume_.KeyFile("old"), "--new-key-file", volume_.KeyFile("x")} +
      volume_.Cheap());
  EXPECT_EQ(other.exit_code, 3);
  volume_.MustRun({"key", "remove", "--keyslot", "0", "--key-file",
                   volume_.KeyFile("sixth")});
  EXPECT_FALSE(volume_.Opens("old"));
  EXPECT_TRUE(volume_.Opens("sixth"));
}

TEST_P(KeyCommandTest, KeyslotIsRemovedByNumberWithoutPassphraseOnlyByForce) {
  volume_.MustRun(Add("old", "new"));
  const ProgramResult refused =
      volume_.Pellucid({"key", "remove", "--keyslot", "1", "--key-file",
                        volume_.KeyFile("wrong")});
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_TRUE(volume_.Opens("new"));
  volume_.MustRun({"key", "remove", "--keyslot", "1", "--force"});
  EXPECT_FALSE(volume_.Opens("new"));
}

TEST_P(KeyCommandTest, ListShowsKeyslotsAndAsksForNothing) {
  volume_.MustRun(Add("old", "new"));
  const std::string list = volume_.MustRun({"key", "list"});
  EXPECT_THAT(list,
              HasSubstr(fmt::format("LUKS{}, 2 of {} keyslots in use",
                                    is_luks2() ? 2 : 1, is_luks2() ? 32 : 8)));
  EXPECT_THAT(list, HasSubstr("   1  pbkdf2-sha256   1000 iterations"));
  const auto json =
      nlohmann::json::parse(volume_.MustRun({"key", "list", "--json"}));
  EXPECT_EQ(json["keyslots"].size(), 2U);
  EXPECT_EQ(json["keyslots"][1]["iterations"], 1000);
}

TEST_P(KeyCommandTest, MalformedOptionsAreUsageErrors) {
  const std::vector<Words> malformed = {
      {"--keyslot", "x"},      {"--keyslot", "-1"},
      {"--keyslot", "1x"},     {"--keyslot", "99999999999"},
      {"--keyslot", "64"},     {"--kdf", "scrypt"},
      {"--iter-time", "0"},    {"--iter-time", "soon"},
      {"--priority", "first"}, {"--pbkdf2-iterations", "1"},
  };
  for (const Words& words : malformed) {
    const ProgramResult result = volume_.Pellucid(
        Words{"key", "add", "--key-file", volume_.KeyFile("old"),
              "--new-key-file", volume_.KeyFile("new")} +
        words + (words[0] == "--kdf" ? Words{} : Words{"--kdf", "pbkdf2"}));
    EXPECT_EQ(result.exit_code, 2)
        << words[0] << " " << words[1] << ": " << result.err;
  }
}

TEST_P(KeyCommandTest, OptionsOfOtherActionsAreRefused) {
  const Bytes before = ReadHostFile(volume_.HeaderFile());
  const std::string key = volume_.KeyFile("old");
  const std::vector<std::pair<Words, std::string>> refusals = {
      {{"list", "--new-key-file", key}, "--new-key-file means nothing"},
      {{"list", "--force"}, "--force means nothing to `pellucid key list`"},
      {{"remove", "--key-file", key, "--iter-time", "10"}, "--iter-time"},
      {{"remove", "--key-file", key, "--hash", "sha512"}, "--hash"},
      {{"remove", "--key-file", key, "--priority", "prefer"}, "--priority"},
      {{"remove", "--key-file", key, "--new-passphrase-fd", "0"},
       "--new-passphrase-fd"},
      {{"add", "--key-file", key, "--new-key-file", key, "--json"}, "--json"},
      {{"change", "--key-file", key, "--new-key-file", key, "--force"},
       "--force"},
      {{"add", "--key-file", key, "--new-key-file", key, "--force-share"},
       "--force-share"},
      {{"add", "--key-file", "-", "--new-key-file", "-"}, "once only"},
      {{"add", "--key-file", key, "--new-key-file", key, "--new-passphrase-fd",
        "0"},
       "comes from one place"},
      {{"add", "--key-file", key, "--new-key-file-size", "3"},
       "--new-key-file-offset and --new-key-file-size need --new-key-file"},
  };
  for (const auto& [words, text] : refusals) {
    const ProgramResult result = volume_.Pellucid(Words{"key"} + words);
    EXPECT_EQ(result.exit_code, 2) << words[0] << " " << result.err;
    EXPECT_THAT(result.err, HasSubstr(text));
  }
  EXPECT_EQ(ReadHostFile(volume_.HeaderFile()), before);
}

TEST_P(KeyCommandTest, NewPassphraseIsAPartOfAFileOrALineOfADescriptor) {
  WriteHostFile(volume_.folder() / "parts", "aaamiddlezzz");
  const Words add = Words{"key", "add", "--key-file", volume_.KeyFile("old")} +
                    volume_.Cheap();
  volume_.MustRun(add + Words{"--new-key-file", volume_.folder() / "parts",
                              "--new-key-file-offset", "3",
                              "--new-key-file-size", "6"});
  EXPECT_TRUE(volume_.Opens("middle"));
  // The old and the new one, from the same descriptor.
  std::string script = "printf 'old\\nsecond line\\n' | \"$0\" \"$@\"";
  Words words = {"sh",
                 "-c",
                 script,
                 PELLUCID_PROGRAM,
                 "key",
                 "add",
                 "--passphrase-fd",
                 "0",
                 "--new-passphrase-fd",
                 "0"};
  EXPECT_EQ(RunProgram(words + volume_.Cheap() + volume_.Operands()).exit_code,
            0);
  EXPECT_TRUE(volume_.Opens("second line"));
  const ProgramResult empty =
      volume_.Pellucid(add + Words{"--new-key-file", volume_.KeyFile("")});
  EXPECT_EQ(empty.exit_code, 2);
  EXPECT_THAT(empty.err, HasSubstr("protects nothing"));
}

TEST_P(KeyCommandTest, WrongPassphraseChangesNothing) {
  const Bytes before = ReadHostFile(volume_.HeaderFile());
  for (const char* action : {"add", "change"}) {
    EXPECT_EQ(volume_
                  .Pellucid(Words{"key", action, "--key-file",
                                  volume_.KeyFile("wrong"), "--new-key-file",
                                  volume_.KeyFile("new")} +
                            volume_.Cheap())
                  .exit_code,
              3);
  }
  EXPECT_EQ(ReadHostFile(volume_.HeaderFile()), before);
}

TEST_P(KeyCommandTest, VolumeInUseIsLeftAlone) {
  const Bytes before = ReadHostFile(volume_.HeaderFile());
  const BackgroundProgram reader({"qemu-io", "-f", "raw", volume_.HeaderFile()},
                                 "qemu-io>");
  const ProgramResult result = volume_.Pellucid(Add("old", "new"));
  EXPECT_EQ(result.exit_code, 6);
  EXPECT_THAT(result.err, HasSubstr("qemu-io"));
  EXPECT_EQ(ReadHostFile(volume_.HeaderFile()), before);
}

INSTANTIATE_TEST_SUITE_P(
    Containers, KeyCommandTest,
    ::testing::Values(Container::kRawLuks1, Container::kRawLuks2,
                      Container::kDetachedLuks1, Container::kDetachedLuks2,
                      Container::kQcow2),
    [](const auto& info) { return ContainerName(info.param); });

class Luks2KeyCommandTest : public KeyCommandTest {};

TEST_P(Luks2KeyCommandTest, PrioritiesAndArgon2) {
  volume_.MustRun({"key", "add", "--key-file", volume_.KeyFile("old"),
                   "--new-key-file", volume_.KeyFile("new"), "--priority",
                   "ignore", "--argon2-time", "4", "--argon2-memory", "64",
                   "--argon2-cpus", "1"});
  const std::string list = volume_.MustRun({"key", "list"});
  EXPECT_THAT(list, HasSubstr("argon2id        time 4, 64 KiB, 1 cpus"));
  EXPECT_THAT(list, HasSubstr("ignore: only if named"));
  EXPECT_FALSE(volume_.Opens("new"));
  volume_.MustRun({"export", "--key-file", volume_.KeyFile("new"), "--keyslot",
                   "1", "--force", "/dev/null"});
}

// It is told, and does not keep the other keyslots from being tried.
TEST_P(Luks2KeyCommandTest, TokensAreShownAndKept) {
  RunTool({"cryptsetup", "token", "add", "--key-description", "of the test",
           "--token-id", "5", volume_.HeaderFile()});
  EXPECT_THAT(volume_.MustRun({"key", "list"}),
              HasSubstr("token 5 (luks2-keyring)"));
  EXPECT_THAT(volume_.MustRun({"info"}), HasSubstr("5: luks2-keyring"));
  volume_.MustRun(Words{"key", "change", "--key-file", volume_.KeyFile("old"),
                        "--new-key-file", volume_.KeyFile("new")} +
                  volume_.Cheap());
  EXPECT_THAT(volume_.MustRun({"key", "list"}),
              HasSubstr("token 5 (luks2-keyring)"));
  EXPECT_THAT(RunTool({"cryptsetup", "luksDump", volume_.HeaderFile()}),
              HasSubstr("5: luks2-keyring"));
}

TEST_P(Luks2KeyCommandTest, KeyslotThatTakesTooMuchMemoryIsNamed) {
  volume_.MustRun({"key", "add", "--key-file", volume_.KeyFile("old"),
                   "--new-key-file", volume_.KeyFile("large"), "--priority",
                   "prefer", "--argon2-time", "4", "--argon2-memory", "524288",
                   "--argon2-cpus", "1"});
  const auto open_with_little_memory = [&](const std::string& passphrase) {
    return RunProgram(Words{"sh", "-c", "ulimit -v 450000; exec \"$0\" \"$@\"",
                            PELLUCID_PROGRAM, "export", "--force", "--threads",
                            "1", "--key-file", volume_.KeyFile(passphrase)} +
                      volume_.Operands() + Words{"/dev/null"});
  };
  EXPECT_EQ(open_with_little_memory("old").exit_code, 0);
  const ProgramResult large = open_with_little_memory("large");
  EXPECT_EQ(large.exit_code, 7);
  EXPECT_THAT(large.err, HasSubstr("keyslot 1 could not be tried: its key "
                                   "derivation takes 524288 KiB"));
}

INSTANTIATE_TEST_SUITE_P(Luks2, Luks2KeyCommandTest,
                         ::testing::Values(Container::kRawLuks2,
                                           Container::kDetachedLuks2),
                         [](const auto& info) {
                           return ContainerName(info.param);
                         });

class Luks1KeyCommandTest : public KeyCommandTest {};

TEST_P(Luks1KeyCommandTest, FullTableIsRefused) {
  for (int i = 1; i < 8; ++i) {
    volume_.MustRun(Add("old", fmt::format("new {}", i)));
  }
  const ProgramResult full = volume_.Pellucid(Add("old", "one more"));
  EXPECT_EQ(full.exit_code, 2);
  EXPECT_THAT(full.err, HasSubstr("remove one first"));
  EXPECT_TRUE(volume_.Opens("new 7"));
}

TEST_P(Luks1KeyCommandTest, WhatOnlyLuks2HasIsRefused) {
  for (const Words& words :
       {Words{"--priority", "prefer"}, Words{"--kdf", "argon2id"},
        Words{"--hash", "sha512"}}) {
    const ProgramResult result = volume_.Pellucid(
        Words{"key", "add", "--key-file", volume_.KeyFile("old"),
              "--new-key-file", volume_.KeyFile("new")} +
        words);
    EXPECT_EQ(result.exit_code, 2) << words[0];
    EXPECT_THAT(result.err, HasSubstr("LUKS")) << words[0];
  }
}

INSTANTIATE_TEST_SUITE_P(Luks1, Luks1KeyCommandTest,
                         ::testing::Values(Container::kRawLuks1,
                                           Container::kQcow2),
                         [](const auto& info) {
                           return ContainerName(info.param);
                         });

// What an unknown bit promises may not be true behind a change, so it goes, but
// only with a change.
TEST(EmbeddedKeyCommandTest, UnknownAutoclearBitsAreClearedByAChange) {
  constexpr uint64_t kLastByteOfField = 95;
  constexpr auto kBitmapsAndUnknown = std::byte{0x21};
  LuksVolumes volume;
  volume.Make(Container::kQcow2);
  const fs::path image = volume.HeaderFile();
  Bytes content = ReadHostFile(image);
  content[kLastByteOfField] = kBitmapsAndUnknown;
  WriteHostFile(image, content);
  const Words add = Words{"key", "add", "--new-key-file", volume.KeyFile("new"),
                          "--key-file"};
  EXPECT_EQ(volume.Pellucid(add + Words{volume.KeyFile("wrong")}).exit_code, 3);
  volume.MustRun({"key", "list"});
  EXPECT_EQ(ReadHostFile(image)[kLastByteOfField], kBitmapsAndUnknown);
  volume.MustRun(add + Words{volume.KeyFile("old")} + volume.Cheap());
  EXPECT_EQ(ReadHostFile(image)[kLastByteOfField], std::byte{0x01});
  EXPECT_TRUE(volume.Opens("new"));
}

// A LUKS volume among the guest data of a qcow2 image, as `qemu-img convert`
// makes one: in place, or a header file as payload of a header image.
class GuestDataKeyCommandTest : public ::testing::TestWithParam<Container> {
 protected:
  GuestDataKeyCommandTest() {
    volume_.Make(GetParam());
    // Also where there is nothing to overwrite in place.
    Convert({"-c", "-f", "raw", "-O", "qcow2", volume_.HeaderFile(), Holder()});
  }

  std::string Holder() const { return volume_.folder() / "holder.qcow2"; }

  static void Convert(const Words& words) {
    RunTool(Words{"qemu-img", "convert"} + words);
  }

  Words Operands() const {
    return volume_.HeaderFile() == volume_.folder() / "image"
               ? Words{Holder()}
               : Words{"--header", Holder(), volume_.folder() / "image"};
  }

  ProgramResult Key(const Words& words) const {
    return RunProgram(Words{PELLUCID_PROGRAM, "key"} + words + Operands());
  }

  // By cryptsetup, from the guest data as QEMU reads it.
  bool Opens(const std::string& passphrase) const {
    const std::string raw = volume_.folder() / "header.raw";
    Convert({"-f", "qcow2", "-O", "raw", Holder(), raw});
    return RunProgram({"cryptsetup", "open", "--test-passphrase", "--key-file",
                       volume_.KeyFile(passphrase), raw})
               .exit_code == 0;
  }

  LuksVolumes volume_;
};

TEST_P(GuestDataKeyCommandTest, PayloadIsThatOfTheRawFile) {
  const auto hash = [&](const Words& operands) {
    return RunTool(Words{PELLUCID_PROGRAM, "export", "--key-file",
                         volume_.KeyFile("old"), "--hash", "sha256",
                         "--force"} +
                   operands + Words{"/dev/null"});
  };
  EXPECT_EQ(hash(Operands()), hash(volume_.Operands()));
}

TEST_P(GuestDataKeyCommandTest, KeyslotsAreAddedChangedAndRemoved) {
  const auto must = [&](const Words& words) {
    const ProgramResult result = Key(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    RunTool({"qemu-img", "check", Holder()});
  };
  must(Words{"add", "--key-file", volume_.KeyFile("old"), "--new-key-file",
             volume_.KeyFile("new")} +
       volume_.Cheap());
  EXPECT_TRUE(Opens("old"));
  EXPECT_TRUE(Opens("new"));
  must({"remove", "--key-file", volume_.KeyFile("old")});
  EXPECT_FALSE(Opens("old"));
  must(Words{"change", "--key-file", volume_.KeyFile("new"), "--new-key-file",
             volume_.KeyFile("third")} +
       volume_.Cheap());
  EXPECT_FALSE(Opens("new"));
  EXPECT_TRUE(Opens("third"));
}

TEST_P(GuestDataKeyCommandTest, SnapshotsThatKeepTheOldHeaderAreToldOf) {
  RunTool({"qemu-img", "snapshot", "-c", "before", Holder()});
  const ProgramResult result =
      Key(Words{"add", "--key-file", volume_.KeyFile("old"), "--new-key-file",
                volume_.KeyFile("new")} +
          volume_.Cheap());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("snapshots, which keep the LUKS header"));
  EXPECT_TRUE(Opens("new"));
  RunTool({"qemu-img", "snapshot", "-a", "before", Holder()});
  EXPECT_FALSE(Opens("new"));
  EXPECT_TRUE(Opens("old"));
}

TEST_P(GuestDataKeyCommandTest, BackingFilesThatKeepTheOldHeaderAreToldOf) {
  const fs::path base = volume_.folder() / "base.qcow2";
  fs::rename(Holder(), base);
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2",
           Holder()});
  const Bytes before = ReadHostFile(base);
  const Words change = Words{"change", "--key-file", volume_.KeyFile("old"),
                             "--new-key-file", volume_.KeyFile("new")} +
                       volume_.Cheap();
  const ProgramResult result = Key(change);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr(Holder() + ": is an overlay"));
  EXPECT_THAT(result.err, HasSubstr("stays as it was in its backing file"));
  EXPECT_TRUE(Opens("new"));
  EXPECT_FALSE(Opens("old"));
  // It is true.
  EXPECT_TRUE(ReadHostFile(base) == before);
  fs::rename(base, Holder());
  EXPECT_TRUE(Opens("old"));
  // An image that is no overlay is not called one.
  EXPECT_EQ(Key(change).err, "");
}

// The header alone in a compressed cluster, in which zstd stores the noise of
// key material as it is.
TEST_P(GuestDataKeyCommandTest, NoFreedClusterKeepsTheKeyMaterial) {
  Bytes header = ReadHostFile(volume_.HeaderFile());
  header.resize(2 << 20);
  WriteHostFile(volume_.folder() / "alone", header);
  Convert({"-c", "-f", "raw", "-O", "qcow2", "-o",
           "cluster_size=2M,compression_type=zstd", volume_.folder() / "alone",
           Holder()});
  const uint64_t area = LuksVersionOf(GetParam()) == 1 ? 4096 : 32768;
  const auto material = std::span(header).subspan(area + 1000, 32);
  const auto is_there = [&] {
    const Bytes file = ReadHostFile(Holder());
    return std::search(file.begin(), file.end(), material.begin(),
                       material.end()) != file.end();
  };
  ASSERT_TRUE(is_there());
  const ProgramResult result =
      Key({"remove", "--force", "--key-file", volume_.KeyFile("old")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("where the disk has it; what snapshots"));
  EXPECT_FALSE(is_there());
}

INSTANTIATE_TEST_SUITE_P(
    Containers, GuestDataKeyCommandTest,
    ::testing::Values(Container::kRawLuks1, Container::kRawLuks2,
                      Container::kDetachedLuks1, Container::kDetachedLuks2),
    [](const auto& info) { return ContainerName(info.param); });

TEST(KeyCommandRefusalTest, HeadersAboveAnotherEncryptionAreNotChanged) {
  LuksVolumes volume;
  volume.Make(Container::kRawLuks2);
  const ScratchFolder folder;
  RunTool({"qemu-img", "create", "-f", "qcow2", "--object",
           "secret,id=s,data=old", "-o",
           "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
           folder / "base.qcow2", "20M"});
  RunTool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2",
           volume.HeaderFile(), folder / "top.qcow2"});
  RunTool({"qemu-img", "rebase", "-u", "-b", "base.qcow2", "-F", "qcow2",
           folder / "top.qcow2"});
  const ProgramResult result =
      RunProgram({PELLUCID_PROGRAM, "key", "add", folder / "top.qcow2"});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.err, HasSubstr("encrypted below it"));
}

TEST(KeyCommandRefusalTest, ImagesWithoutAHeaderToChange) {
  const ScratchFolder folder;
  const auto key = [&](const std::string& image) {
    return RunProgram({PELLUCID_PROGRAM, "key", "add", folder / image});
  };
  WriteHostFile(folder / "plain", Noise(100000, 1));
  EXPECT_EQ(key("plain").exit_code, 2);
  EXPECT_THAT(key("plain").err, HasSubstr("no LUKS header"));

  RunTool({"qemu-img", "create", "-f", "qcow2", folder / "plain.qcow2", "1M"});
  EXPECT_EQ(key("plain.qcow2").exit_code, 2);
  EXPECT_THAT(key("plain.qcow2").err, HasSubstr("no LUKS header"));

  RunTool({"qemu-img", "create", "-f", "qcow2", "--object",
           "secret,id=s,data=old", "-o",
           "encrypt.format=aes,encrypt.key-secret=s", folder / "aes.qcow2",
           "1M"});
  EXPECT_EQ(key("aes.qcow2").exit_code, 2);
  EXPECT_THAT(key("aes.qcow2").err, HasSubstr("legacy AES"));

  RunTool({"qemu-img", "create", "-f", "vmdk", folder / "disk.vmdk", "1M"});
  EXPECT_EQ(key("disk.vmdk").exit_code, 5);
  EXPECT_THAT(key("disk.vmdk").err, AllOf(HasSubstr("is a VMDK image"),
                                          HasSubstr("or say --format raw")));
  const auto with_header = [&](const std::string& subcommand) {
    return RunProgram({PELLUCID_PROGRAM, subcommand, "--header",
                       folder / "disk.vmdk", folder / "plain"});
  };
  for (const char* subcommand : {"info", "check"}) {
    EXPECT_THAT(with_header(subcommand).err,
                HasSubstr("or say --header-format raw"))
        << subcommand;
  }

  EXPECT_EQ(key("missing").exit_code, 7);
  const ProgramResult action =
      RunProgram({PELLUCID_PROGRAM, "key", "steal", folder / "plain"});
  EXPECT_EQ(action.exit_code, 2);
  EXPECT_THAT(action.err, HasSubstr("'steal'"));
}

}  // namespace
}  // namespace pellucid
