#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr char kWarning[] = "looks random when it is decrypted";

// Volumes with detached headers. "right.hdr" and "wrong.hdr" fit every payload
// and have the same passphrase.
class WrongHeaderTest : public EncryptedImageTest {
 protected:
  WrongHeaderTest() {
    KeyFile();
    MakeVolume("right.hdr", "payload", "raw", "64M");
    MakeVolume("wrong.hdr", "other", "raw", "1M");
  }

  void MakeVolume(const std::string& header, const std::string& payload,
                  const std::string& format, const std::string& size) {
    const ProgramResult result = RunPellucid(
        {"create", "--force", "--format", format, "--detached-header", header,
         "--key-file", "key", "--iter-time", "10", payload, size});
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }

  // Runs `command` with the mounted plaintext as its last word.
  void RunOnMount(std::vector<std::string> command,
                  const std::string& payload = "payload") {
    std::filesystem::create_directory(folder_ / "mnt");
    const ProgramResult mount =
        RunPellucid({"mount", "--header", "right.hdr", "--key-file", "key",
                     payload, "mnt"});
    ASSERT_EQ(mount.exit_code, 0) << mount.err;
    EXPECT_THAT(mount.err, IsEmpty());
    command.push_back("mnt/disk");
    const ProgramResult result = RunProgram(command, "", folder_.path());
    EXPECT_EQ(RunPellucid({"umount", "mnt"}).exit_code, 0);
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
    std::filesystem::remove(folder_ / "mnt");
  }

  // What an export has to say of the pair.
  std::string Messages(const std::string& header,
                       const std::string& payload = "payload") {
    const ProgramResult result =
        RunPellucid({"export", "--header", header, "--key-file", "key",
                     "--length", "1", payload, "/dev/null"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.err;
  }

  std::string Uuid(const std::string& header) {
    const ProgramResult info =
        RunPellucid({"info", "--json", "--header", header, "payload"});
    return nlohmann::json::parse(info.out)["luks"]["uuid"];
  }
};

TEST_F(WrongHeaderTest, WhatMkfsMakesOnAFreshVolumeIsNoNoise) {
  struct Case {
    std::vector<std::string> command;
    const char* size;
  };
  for (const Case& c : std::vector<Case>{
           {{"mkfs.ext4", "-q", "-E", "nodiscard"}, "64M"},
           {{"mkfs.ext2", "-q", "-b", "1024"}, "64M"},
           {{"mkfs.xfs", "-q", "-K"}, "320M"},
           {{"mkfs.btrfs", "-q", "-K"}, "128M"},
           {{"mkfs.minix"}, "64M"},
           {{"mkfs.vfat"}, "64M"},
           {{"mkfs.ntfs", "-q", "-F", "-f"}, "64M"},
           {{"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf",
             "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "key"},
            "64M"}}) {
    SCOPED_TRACE(c.command.front());
    for (const char* format : {"raw", "qcow2"}) {
      MakeVolume("right.hdr", "payload", format, c.size);
      RunOnMount(c.command);
      EXPECT_THAT(Messages("right.hdr"), IsEmpty()) << format;
      EXPECT_THAT(Messages("wrong.hdr"), HasSubstr(kWarning)) << format;
    }
  }
}

TEST_F(WrongHeaderTest, SwapAndPartitionTablesAreNoNoise) {
  for (const char* command :
       {"mkswap $1", "echo , | sfdisk -q --no-reread --no-tell-kernel $1",
        "echo , | sfdisk -q --no-reread --no-tell-kernel -X gpt $1",
        "printf LABELONE | dd of=$1 bs=512 seek=1 conv=notrunc status=none"}) {
    MakeVolume("right.hdr", "payload", "raw", "64M");
    RunOnMount(
        {"sh", "-c", std::string("export PATH=$PATH:/sbin; ") + command, "sh"});
    EXPECT_THAT(Messages("right.hdr"), IsEmpty()) << command;
  }
}

TEST_F(WrongHeaderTest, EmptyVolumesAreNoNoise) {
  // Ciphertext of zeros reads as noise by every key.
  EXPECT_THAT(Messages("right.hdr"), IsEmpty());
  EXPECT_THAT(Messages("wrong.hdr"), IsEmpty());
  MakeVolume("right.hdr", "payload", "qcow2", "64M");
  EXPECT_THAT(Messages("right.hdr"), IsEmpty());
  // Zeros that were written.
  RunOnMount(
      {"sh", "-c", "dd if=/dev/zero bs=1M count=64 of=$1 conv=notrunc", "sh"});
  EXPECT_THAT(Messages("right.hdr"), IsEmpty());
  EXPECT_THAT(Messages("wrong.hdr"), HasSubstr(kWarning));
}

TEST_F(WrongHeaderTest, RandomDataIsWarnedOf) {
  WriteHostFile(folder_ / "payload", Noise(4 << 20, 1));
  const std::string messages = Messages("right.hdr");
  EXPECT_THAT(messages, HasSubstr(kWarning));
  EXPECT_THAT(messages, HasSubstr("payload"));
  EXPECT_THAT(messages, HasSubstr("right.hdr"));
  const ProgramResult verify =
      RunPellucid({"export", "--header", "right.hdr", "--key-file", "key",
                   "--manifest", "manifest", "payload", "copy"});
  EXPECT_THAT(verify.err, HasSubstr(kWarning));
  std::filesystem::create_directory(folder_ / "mnt");
  const ProgramResult mount =
      RunPellucid({"mount", "--read-only", "--header", "right.hdr",
                   "--key-file", "key", "payload", "mnt"});
  EXPECT_EQ(RunPellucid({"umount", "mnt"}).exit_code, 0);
  EXPECT_THAT(mount.err, HasSubstr(kWarning));
}

TEST_F(WrongHeaderTest, AnotherHeaderThanTheExpectedIsRefusedUnopened) {
  const std::string uuid = Uuid("right.hdr");
  const std::string sha256 = Sha256(ReadHostFile(folder_ / "right.hdr"));
  std::string upper = uuid;
  for (char& c : upper) c = static_cast<char>(toupper(c));
  for (const char* subcommand : {"info", "map", "export", "mount"}) {
    SCOPED_TRACE(subcommand);
    const auto run = [&](const std::vector<std::string>& options) {
      std::vector<std::string> words = {subcommand};
      words.insert(words.end(), options.begin(), options.end());
      words.push_back("payload");
      if (*subcommand == 'e') words.push_back("copy");
      if (*subcommand == 'm' && subcommand[1] == 'o') words.push_back("mnt");
      return RunPellucid(words);
    };
    std::filesystem::create_directory(folder_ / "mnt");
    // Without a key: a passphrase would be asked for.
    const ProgramResult other_uuid =
        run({"--header", "wrong.hdr", "--expect-uuid", uuid});
    EXPECT_EQ(other_uuid.exit_code, 2);
    EXPECT_THAT(other_uuid.err, HasSubstr("wrong.hdr: the UUID"));
    EXPECT_THAT(other_uuid.err, HasSubstr(uuid));
    EXPECT_THAT(other_uuid.out, IsEmpty());
    const ProgramResult other_file =
        run({"--header", "wrong.hdr", "--expect-header-sha256", sha256});
    EXPECT_EQ(other_file.exit_code, 2);
    EXPECT_THAT(other_file.err, HasSubstr("wrong.hdr: its SHA-256 is"));
    const ProgramResult bad =
        run({"--header", "right.hdr", "--expect-header-sha256", "12"});
    EXPECT_EQ(bad.exit_code, 2);
    EXPECT_THAT(bad.err, HasSubstr("64 hexadecimal digits"));
    const ProgramResult embedded = run({"--expect-header-sha256", sha256});
    EXPECT_EQ(embedded.exit_code, 2);
    EXPECT_THAT(embedded.err, HasSubstr("needs --header"));
    const ProgramResult plain = run({"--expect-uuid", uuid});
    EXPECT_EQ(plain.exit_code, 2);
    EXPECT_THAT(plain.err, HasSubstr("no LUKS header"));
    std::filesystem::remove_all(folder_ / "mnt");
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ / "copy"));
  EXPECT_EQ(RunPellucid({"info", "--header", "right.hdr", "--expect-uuid",
                         upper, "--expect-header-sha256", sha256, "payload"})
                .exit_code,
            0);
  EXPECT_EQ(RunPellucid({"export", "--key-file", "key", "--header", "right.hdr",
                         "--expect-uuid", uuid, "--expect-header-sha256",
                         sha256, "payload", "copy"})
                .exit_code,
            0);
}

TEST_F(WrongHeaderTest, AnEmbeddedHeaderCanBeExpectedToo) {
  MakeImage("disk.qcow2");
  const nlohmann::json info =
      nlohmann::json::parse(RunPellucid({"info", "--json", "disk.qcow2"}).out);
  const std::string uuid = info["qcow2"]["luks"]["uuid"];
  for (const bool right : {true, false}) {
    const std::string expected = right ? uuid : Uuid("right.hdr");
    EXPECT_EQ(RunPellucid({"info", "--expect-uuid", expected, "disk.qcow2"})
                  .exit_code,
              right ? 0 : 2);
    EXPECT_EQ(RunPellucid({"export", "--key-file", "key", "--expect-uuid",
                           expected, "disk.qcow2", "/dev/null"})
                  .exit_code,
              right ? 0 : 2);
  }
}

}  // namespace
}  // namespace pellucid
