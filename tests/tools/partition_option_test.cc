#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kSector = 512;
constexpr uint64_t kFirstSector = 2048;   // Of partition 1, which is plain.
constexpr uint64_t kCryptSector = 10240;  // Of partition 2, which is LUKS.
constexpr uint64_t kCryptSectors = 4040 + 8192;      // QEMU's header, 4 MiB.
constexpr uint64_t kPlainBytes = uint64_t{4} << 20;  // In the LUKS volume.

// An installed system as QEMU sees it, in a raw disk and in a qcow2 image: what
// it writes into the LUKS1 volume of partition 2 and what it finds there.
class PartitionOptionTest : public EncryptedImageTest,
                            public testing::WithParamInterface<const char*> {
 protected:
  PartitionOptionTest() {
    KeyFile();
    RunTool({"truncate", "-s", "16M", In("disk.raw")});
    RunTool({"sfdisk", "--quiet", In("disk.raw")},
            fmt::format("label: gpt\nstart={}, size=4096\n"
                        "start={}, size={}, name=\"crypt data\"\n",
                        kFirstSector, kCryptSector, kCryptSectors));
    RunTool({"qemu-img", "create", "-q", "--object", Secret(), "-f", "luks",
             "-o", "key-secret=key,iter-time=10", In("volume"), "4M"});
    RunTool({"dd", "if=" + In("volume"), "of=" + In("disk.raw"), "bs=512",
             fmt::format("seek={}", kCryptSector), "conv=notrunc",
             "status=none"});
    if (is_qcow2()) {
      RunTool({"qemu-img", "convert", "-O", "qcow2", In("disk.raw"), Disk()});
    }
    QemuIo("write -P 0x5a 1M 64k");
  }

  bool is_qcow2() const { return std::string_view(GetParam()) == "qcow2"; }
  std::string In(const std::string& name) const {
    return (folder_ / name).native();
  }
  std::string Disk() const { return In(fmt::format("disk.{}", GetParam())); }

  static std::string Secret() {
    return fmt::format("secret,id=key,data={}", kPassphrase);
  }

  // Of the plaintext in the partition, for QEMU's --image-opts.
  std::string Volume() const {
    return fmt::format(
        "driver=luks,key-secret=key,file.driver=raw,file.offset={},"
        "file.size={},{}",
        kCryptSector * kSector, kCryptSectors * kSector,
        is_qcow2() ? "file.file.driver=qcow2,file.file.file.filename=" + Disk()
                   : "file.file.filename=" + Disk());
  }
  void QemuIo(const std::string& command) {
    const std::string said = RunTool({"qemu-io", "--object", Secret(),
                                      "--image-opts", "-c", command, Volume()});
    EXPECT_THAT(said, Not(HasSubstr("failed")));
  }
  std::string PlaintextByQemu() {
    RunTool({"qemu-img", "convert", "--object", Secret(), "--image-opts",
             Volume(), "-O", "raw", In("by-qemu")});
    return RunTool({"sha256sum", In("by-qemu")}).substr(0, 64);
  }
  // The first mebibytes of the disk, in which nobody has a right to write.
  std::string OutsideOfTheVolume() {
    RunTool({"qemu-img", "convert", "-O", "raw", Disk(), In("whole")});
    return RunTool({"sh", "-c",
                    fmt::format("(head -c {} {}; tail -c +{} {}) | sha256sum",
                                kCryptSector * kSector, In("whole"),
                                (kCryptSector + kCryptSectors) * kSector + 1,
                                In("whole"))});
  }
  void Mount(const std::vector<std::string>& options) {
    std::filesystem::create_directory(folder_ / "mnt");
    std::vector<std::string> words = {"mount", "--key-file", "key"};
    words.insert(words.end(), options.begin(), options.end());
    words.insert(words.end(), {Disk(), "mnt"});
    const ProgramResult result = RunPellucid(words);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  void Unmount() { EXPECT_EQ(RunPellucid({"umount", "mnt"}).exit_code, 0); }
};

TEST_P(PartitionOptionTest, ExportGivesWhatQemuFindsInTheVolume) {
  const ProgramResult result = RunPellucid(
      {"export", "--key-file", "key", "--partition", "2", Disk(), "plain"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::filesystem::file_size(folder_ / "plain"), kPlainBytes);
  EXPECT_EQ(RunTool({"sha256sum", In("plain")}).substr(0, 64),
            PlaintextByQemu());
}

TEST_P(PartitionOptionTest, ImportIsReadByQemuAndLeavesTheRestAlone) {
  RunTool({"dd", "if=/dev/urandom", "of=" + In("plain"), "bs=1M", "count=4",
           "status=none"});
  const std::string outside = OutsideOfTheVolume();
  const ProgramResult result = RunPellucid(
      {"import", "--key-file", "key", "--partition", "2", "plain", Disk()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(RunTool({"sha256sum", In("plain")}).substr(0, 64),
            PlaintextByQemu());
  EXPECT_EQ(OutsideOfTheVolume(), outside);
}

TEST_P(PartitionOptionTest, MountIsReadAndWritten) {
  const std::string outside = OutsideOfTheVolume();
  Mount({"--partition", "2"});
  const auto disk = folder_ / "mnt" / "disk";
  EXPECT_EQ(std::filesystem::file_size(disk), kPlainBytes);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "mnt" / "snapshots"));
  RunTool({"dd", "if=/dev/urandom", "of=" + disk.native(), "bs=1000",
           "count=700", "seek=1", "conv=notrunc,fsync", "status=none"});
  const std::string written =
      RunTool({"sha256sum", disk.native()}).substr(0, 64);
  Unmount();
  EXPECT_EQ(PlaintextByQemu(), written);
  EXPECT_EQ(OutsideOfTheVolume(), outside);
}

TEST_P(PartitionOptionTest, OverlayTakesWhatIsWrittenAsCiphertext) {
  const std::string before = RunTool({"sha256sum", Disk()});
  Mount({"--partition", "2", "--overlay", In("overlay.qcow2")});
  RunTool({"sh", "-c",
           fmt::format("yes 'known plaintext' | dd of={} bs=64k count=8 "
                       "iflag=fullblock conv=notrunc,fsync status=none",
                       (folder_ / "mnt" / "disk").native())});
  Unmount();
  EXPECT_EQ(RunTool({"sha256sum", Disk()}), before);
  EXPECT_EQ(
      RunProgram({"grep", "-c", "known plaintext", In("overlay.qcow2")}).out,
      "0\n");
  Mount({"--partition", "2", "--overlay", In("overlay.qcow2")});
  EXPECT_EQ(RunTool({"head", "-c", "16", (folder_ / "mnt" / "disk").native()}),
            "known plaintext\n");
  Unmount();
}

TEST_P(PartitionOptionTest, APlainPartitionIsShownAsItIs) {
  const ProgramResult result =
      RunPellucid({"export", "--partition", "1", Disk(), "first"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::filesystem::file_size(folder_ / "first"), 4096 * kSector);
}

TEST_P(PartitionOptionTest, CiphertextIsShownOnRequest) {
  const ProgramResult result =
      RunPellucid({"export", "--partition", "2", "--encryption", "none", Disk(),
                   "ciphertext"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(RunTool({"head", "-c", "4", In("ciphertext")}), "LUKS");
}

TEST_P(PartitionOptionTest, InfoTellsWhatCanBeOpenedAndWhatIsThere) {
  const ProgramResult text = RunPellucid({"info", Disk()});
  EXPECT_THAT(text.out, HasSubstr("in partition 2; --partition 2 opens it"));
  const auto disk =
      nlohmann::json::parse(RunPellucid({"info", "--json", Disk()}).out);
  EXPECT_THAT(disk["luks_partitions"], ElementsAre(2));
  EXPECT_TRUE(disk["partition"].is_null());

  const auto part = nlohmann::json::parse(
      RunPellucid({"info", "--json", "--partition", "2", Disk()}).out);
  EXPECT_EQ(part["partition"]["number"], 2);
  EXPECT_EQ(part["partition"]["offset"], kCryptSector * kSector);
  EXPECT_EQ(part["partition"]["size"], kCryptSectors * kSector);
  EXPECT_EQ(part["partition"]["label"], "crypt data");
  EXPECT_EQ(part["luks"]["version"], 1);
  EXPECT_EQ(part["luks"]["header_offset"], kCryptSector * kSector);
  EXPECT_EQ(part["virtual_size"], kPlainBytes);
}

TEST_P(PartitionOptionTest, TheExpectedHeaderIsThatOfThePartition) {
  const auto part = nlohmann::json::parse(
      RunPellucid({"info", "--json", "--partition", "2", Disk()}).out);
  const std::string uuid = part["luks"]["uuid"];
  const auto export_with = [&](const std::string& expected) {
    return RunPellucid({"export", "--force", "--key-file", "key", "--partition",
                        "2", "--expect-uuid", expected, Disk(), "/dev/null"});
  };
  EXPECT_EQ(export_with(uuid).exit_code, 0);
  EXPECT_NE(export_with("01234567-89ab-cdef-0123-456789abcdef").exit_code, 0);
}

TEST_P(PartitionOptionTest, KeysAreListedAddedAndRemoved) {
  KeyFile("spare", "spare");
  const std::string outside = OutsideOfTheVolume();
  ASSERT_EQ(RunPellucid({"key", "add", "--quiet", "--partition", "2",
                         "--key-file", "key", "--new-key-file", "spare",
                         "--pbkdf2-iterations", "1000", Disk()})
                .exit_code,
            0);
  EXPECT_EQ(RunPellucid({"key", "remove", "--quiet", "--partition", "2",
                         "--key-file", "key", Disk()})
                .exit_code,
            0);
  const auto left = nlohmann::json::parse(
      RunPellucid({"key", "list", "--json", "--partition", "2", Disk()}).out);
  EXPECT_EQ(left["keyslots"].size(), 1U);
  const auto exit_code = [&](const std::string& key) {
    return RunPellucid({"export", "--force", "--key-file", key, "--partition",
                        "2", Disk(), "/dev/null"})
        .exit_code;
  };
  EXPECT_EQ(exit_code("spare"), 0);
  EXPECT_EQ(exit_code("key"), 3);
  EXPECT_EQ(OutsideOfTheVolume(), outside);
}

TEST_P(PartitionOptionTest, HeaderIsBackedUpAndRestored) {
  const std::string before = RunTool({"sha256sum", Disk()});
  ASSERT_EQ(RunPellucid({"header", "backup", "--quiet", "--partition", "2",
                         Disk(), "backup"})
                .exit_code,
            0);
  EXPECT_EQ(RunTool({"sha256sum", Disk()}), before);
  EXPECT_EQ(RunTool({"cryptsetup", "luksUUID", In("backup")}),
            nlohmann::json::parse(
                RunPellucid({"info", "--json", "--partition", "2", Disk()})
                    .out)["luks"]["uuid"]
                    .get<std::string>() +
                "\n");
  KeyFile("spare", "spare");
  ASSERT_EQ(RunPellucid({"key", "change", "--quiet", "--partition", "2",
                         "--key-file", "key", "--new-key-file", "spare",
                         "--pbkdf2-iterations", "1000", Disk()})
                .exit_code,
            0);
  const ProgramResult restored =
      RunPellucid({"header", "restore", "--quiet", "--force", "--partition",
                   "2", Disk(), "backup"});
  ASSERT_EQ(restored.exit_code, 0) << restored.err;
  QemuIo("read -P 0x5a 1M 64k");
}

TEST_P(PartitionOptionTest, ADetachedHeaderIsOfTheWholeImage) {
  const ProgramResult result = RunPellucid(
      {"key", "list", "--partition", "2", "--header", Disk(), Disk()});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("leave --partition out"));
}

TEST_P(PartitionOptionTest, AWrongPassphraseIsSaidOfThePartition) {
  KeyFile("wrong", "wrong");
  const ProgramResult result = RunPellucid(
      {"export", "--key-file", "wrong", "--partition", "2", Disk(), "plain"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("partition 2: wrong passphrase"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "plain"));
}

TEST_P(PartitionOptionTest, APartitionThatIsNotThereIsRefused) {
  for (const char* command : {"export", "info"}) {
    std::vector<std::string> words = {command, "--partition", "7", Disk()};
    if (words[0] == "export") words.push_back("plain");
    const ProgramResult result = RunPellucid(words);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err, HasSubstr("has no partition 7; there are 1, 2"));
  }
}

INSTANTIATE_TEST_SUITE_P(Containers, PartitionOptionTest,
                         testing::Values("raw", "qcow2"),
                         [](const auto& info) { return info.param; });

using EncryptedPartitionTest = EncryptedImageTest;

TEST_F(EncryptedPartitionTest, APartitionOfAnEncryptedDiskIsDecryptedTwice) {
  KeyFile();
  KeyFile("inside", "inner");
  MakeImage("disk.qcow2");
  RunTool({"truncate", "-s", "64M", (folder_ / "system.raw").native()});
  RunTool({"sfdisk", "--quiet", (folder_ / "system.raw").native()},
          "label: dos\nstart=2048, size=40960\n");
  ASSERT_EQ(RunPellucid({"create", "--quiet", "--format", "raw", "--key-file",
                         "inner", "--iter-time", "10", "volume", "1M"})
                .exit_code,
            0);
  RunTool({"dd", "if=" + (folder_ / "volume").native(),
           "of=" + (folder_ / "system.raw").native(), "bs=512", "seek=2048",
           "conv=notrunc", "status=none"});
  ASSERT_EQ(RunPellucid({"import", "--quiet", "--key-file", "key", "system.raw",
                         "disk.qcow2"})
                .exit_code,
            0);
  const std::vector<std::string> both = {
      "--key-file", "key", "--key-file", "inner", "--partition", "1"};
  std::vector<std::string> words = {"import", "--quiet"};
  words.insert(words.end(), both.begin(), both.end());
  RunTool(
      {"sh", "-c",
       fmt::format("yes | head -c 1048576 > {}", (folder_ / "text").native())});
  words.insert(words.end(), {"text", "disk.qcow2"});
  ProgramResult result = RunPellucid(words);
  ASSERT_EQ(result.exit_code, 0) << result.err;

  // The disk without its own encryption: the volume must be as usual in it.
  ASSERT_EQ(RunPellucid({"export", "--quiet", "--key-file", "key", "--offset",
                         "1M", "--length", "20M", "disk.qcow2", "ciphertext"})
                .exit_code,
            0);
  ASSERT_EQ(RunPellucid({"export", "--quiet", "--key-file", "inner",
                         "ciphertext", "plain"})
                .exit_code,
            0);
  RunTool({"cmp", "-n", "1048576", (folder_ / "plain").native(),
           (folder_ / "text").native()});

  // What is in it cannot be told without a passphrase, and nobody is asked.
  result = RunPellucid({"info", "--partition", "1", "disk.qcow2"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("is encrypted as a whole"));
}

TEST_F(EncryptedPartitionTest, InfoLooksAtSixteenPartitions) {
  const std::string disk = (folder_ / "disk.raw").native();
  RunTool({"truncate", "-s", "24M", disk});
  std::string table = "label: gpt\n";
  for (int i = 0; i < 18; ++i) table += "size=2048\n";
  RunTool({"sfdisk", "--quiet", disk}, table);
  for (int i = 1; i <= 18; ++i) {
    RunTool({"dd", "of=" + disk, "bs=1M", fmt::format("seek={}", i),
             "conv=notrunc", "status=none"},
            std::string("LUKS\xba\xbe\0\1", 8));
  }
  const auto info =
      nlohmann::json::parse(RunPellucid({"info", "--json", "disk.raw"}).out);
  EXPECT_EQ(info["luks_partitions"].size(), 16U);
}

TEST_F(EncryptedPartitionTest, WhatIsUnallocatedBelongsToNoPartition) {
  MakeImage("disk.qcow2");
  const ProgramResult result =
      RunPellucid({"export", "--unallocated", "--partition", "1", "--key-file",
                   KeyFile(), "disk.qcow2", "remains"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("leave --partition out"));
}

}  // namespace
}  // namespace pellucid
