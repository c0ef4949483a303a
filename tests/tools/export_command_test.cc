#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

Bytes Part(const Bytes& bytes, uint64_t offset, uint64_t length) {
  const auto begin = bytes.begin() + static_cast<ptrdiff_t>(offset);
  return {begin, begin + static_cast<ptrdiff_t>(length)};
}

Bytes ToBytes(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

class ExportCommandTest : public EncryptedImageTest {
 protected:
  ExportCommandTest() {
    MakeImage("disk.qcow2");
    KeyFile();
  }

  ProgramResult Export(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {"export", "--key-file", "key"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return RunPellucid(words);
  }

  struct stat StatOf(const std::string& name) {
    struct stat status = {};
    EXPECT_EQ(stat((folder_ / name).c_str(), &status), 0) << name;
    return status;
  }

  // An empty payload for a detached header; gives the folder.
  std::filesystem::path MakePayload() {
    WriteHostFile(folder_ / "payload", std::string(1 << 20, '\0'));
    return folder_.path();
  }

  bool Exists(const std::string& name) {
    return std::filesystem::exists(folder_ / name);
  }
};

TEST_F(ExportCommandTest, AFileIsExactSparseAndPrivate) {
  const ProgramResult result = Export({"disk.qcow2", "copy.raw"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_THAT(result.err, IsEmpty());
  EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
  const struct stat status = StatOf("copy.raw");
  EXPECT_LE(status.st_blocks * 512, 4 << 20);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(ExportCommandTest, NoSparseStoresEveryZero) {
  EXPECT_EQ(Export({"--no-sparse", "disk.qcow2", "copy.raw"}).exit_code, 0);
  EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
  EXPECT_GE(static_cast<uint64_t>(StatOf("copy.raw").st_blocks) * 512,
            kImageSize);
}

TEST_F(ExportCommandTest, StandardOutputGetsTheSameBytes) {
  const ProgramResult result = Export({"disk.qcow2", "-"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(ToBytes(result.out) == Plaintext());
}

TEST_F(ExportCommandTest, APartIsCutToTheByte) {
  const Bytes plaintext = Plaintext();
  const uint64_t offset = kDataOffset - 777;
  const ProgramResult result = Export({"--offset", std::to_string(offset),
                                       "--length", "2M", "disk.qcow2", "-"});
  EXPECT_TRUE(ToBytes(result.out) == Part(plaintext, offset, 2 << 20));
  EXPECT_EQ(Export({"--offset", "63MiB", "disk.qcow2", "tail.raw"}).exit_code,
            0);
  EXPECT_TRUE(ReadHostFile(folder_ / "tail.raw") ==
              Part(plaintext, 63 << 20, 1 << 20));
  EXPECT_EQ(Export({"--length", "0", "disk.qcow2", "none.raw"}).exit_code, 0);
  EXPECT_EQ(StatOf("none.raw").st_size, 0);
}

TEST_F(ExportCommandTest, PartsPastTheEndAreRefused) {
  for (const std::vector<std::string>& part :
       std::vector<std::vector<std::string>>{
           {"--offset", "65M"},
           {"--length", "65M"},
           {"--offset", "60M", "--length", "5M"},
           {"--offset", "1", "--length", "18446744073709551615"}}) {
    std::vector<std::string> arguments = part;
    arguments.insert(arguments.end(), {"disk.qcow2", "copy.raw"});
    const ProgramResult result = Export(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err, HasSubstr("the plaintext"));
    EXPECT_FALSE(Exists("copy.raw"));
  }
}

TEST_F(ExportCommandTest, TheHashIsThatOfThePlaintext) {
  const std::string expected = Sha256(Plaintext());
  const ProgramResult to_file =
      Export({"--hash", "sha256", "disk.qcow2", "copy.raw"});
  EXPECT_EQ(to_file.out, expected + "  copy.raw\n");
  RunTool({"sha256sum", "--check", "--strict", "-"}, to_file.out,
          folder_.path());
  const ProgramResult to_stdout =
      Export({"--hash", "SHA256", "disk.qcow2", "-"});
  EXPECT_EQ(to_stdout.err, expected + "  -\n");
  EXPECT_TRUE(ToBytes(to_stdout.out) == Plaintext());
  const ProgramResult nowhere =
      Export({"--hash", "sha256", "disk.qcow2", "/dev/null"});
  EXPECT_EQ(nowhere.out, expected + "  /dev/null\n");
}

TEST_F(ExportCommandTest, SeveralHashesArePrintedAsTheCoreutilsTakeThem) {
  for (const char* name : {"copy.raw", "a\\\nb"}) {
    const ProgramResult result = Export(
        {"--hash", "md5,SHA1,sha256,blake2b,sha512", "disk.qcow2", name});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    RunTool({"cksum", "--check", "--strict", "-"}, result.out, folder_.path());
    for (const char* program : {"md5sum", "sha1sum", "sha256sum", "b2sum"}) {
      EXPECT_THAT(
          RunTool({program, "--check", "-"}, result.out, folder_.path()),
          HasSubstr(": OK"));
    }
  }
  for (const auto& [hash, program] :
       {std::pair("blake2b", "b2sum"), std::pair("md5", "md5sum")}) {
    const ProgramResult one =
        Export({"--hash", hash, "--force", "disk.qcow2", "copy.raw"});
    RunTool({program, "--check", "--strict", "-"}, one.out, folder_.path());
  }
}

TEST_F(ExportCommandTest, HashesCanBeJson) {
  const ProgramResult result =
      Export({"--json", "--hash", "sha256,md5", "--offset", "1M", "disk.qcow2",
              "copy.raw"});
  const nlohmann::json report = nlohmann::json::parse(result.out);
  EXPECT_EQ(report["file"], "copy.raw");
  EXPECT_EQ(report["offset"], 1 << 20);
  EXPECT_EQ(report["length"], kImageSize - (1 << 20));
  EXPECT_EQ(report["hashes"]["sha256"],
            Sha256(ReadHostFile(folder_ / "copy.raw")));
  EXPECT_EQ(RunTool({"md5sum", "copy.raw"}, "", folder_.path()),
            report["hashes"]["md5"].get<std::string>() + "  copy.raw\n");
}

TEST_F(ExportCommandTest, HashesThatDoNotExistAreRefused) {
  for (const char* names : {"crc32", "sha256,sha256", "md5,,sha1"}) {
    const ProgramResult result =
        Export({"--hash", names, "disk.qcow2", "copy.raw"});
    EXPECT_EQ(result.exit_code, 2) << names;
    EXPECT_THAT(result.err, HasSubstr("--hash"));
  }
  EXPECT_EQ(Export({"--json", "disk.qcow2", "copy.raw"}).exit_code, 2);
}

TEST_F(ExportCommandTest, AManifestHasTheHashesOfTheCopyToo) {
  const ProgramResult result = Export({"--manifest", "manifest", "--hash",
                                       "sha256,md5", "disk.qcow2", "copy.raw"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  // What `head -n -1` leaves has the checksum that the last line names.
  const std::string checksum =
      RunTool({"sh", "-c", "head -n -1 manifest | sha256sum | cut -c 1-64"}, "",
              folder_.path());
  const nlohmann::json last = nlohmann::json::parse(
      RunTool({"tail", "-n", "1", "manifest"}, "", folder_.path()));
  EXPECT_EQ(last["manifest_sha256"].get<std::string>() + "\n", checksum);
  EXPECT_EQ(last["hashes"]["sha256"], Sha256(Plaintext()));
  // The chunk with data in it, by another program.
  const std::string chunk =
      RunTool({"sh", "-c",
               "dd if=copy.raw bs=1M skip=10 count=1 status=none | sha256sum"},
              "", folder_.path());
  EXPECT_THAT(
      RunTool({"cat", "manifest"}, "", folder_.path()),
      HasSubstr("{\"offset\":10485760,\"length\":1048576,\"sha256\":\"" +
                chunk.substr(0, 64) + "\"}\n"));
  EXPECT_EQ(StatOf("manifest").st_mode & 0777, 0600u);
}

TEST_F(ExportCommandTest, AManifestNeedsAFileOfItsOwn) {
  WriteHostFile(folder_ / "old", "old");
  const ProgramResult exists =
      Export({"--manifest", "old", "disk.qcow2", "copy.raw"});
  EXPECT_EQ(exists.exit_code, 2);
  EXPECT_THAT(exists.err, HasSubstr("--force"));
  const Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  for (const char* manifest : {"disk.qcow2", "./copy.raw"}) {
    const ProgramResult result =
        Export({"--force", "--manifest", manifest, "disk.qcow2", "copy.raw"});
    EXPECT_EQ(result.exit_code, 2) << manifest;
    EXPECT_THAT(result.err, HasSubstr("of its own"));
    EXPECT_FALSE(Exists("copy.raw"));
  }
  EXPECT_TRUE(ReadHostFile(folder_ / "disk.qcow2") == image);
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{
           {"--chunk-size", "1M"},
           {"--chunk-hash", "md5"},
           {"--manifest", "m", "--chunk-size", "1K"},
           {"--manifest", "m", "--chunk-size", "128M"},
           {"--manifest", "m", "--chunk-hash", "crc32"}}) {
    std::vector<std::string> arguments = words;
    arguments.insert(arguments.end(), {"disk.qcow2", "copy.raw"});
    EXPECT_EQ(Export(arguments).exit_code, 2);
  }
  EXPECT_EQ(Export({"--force", "--manifest", "old", "disk.qcow2", "copy.raw"})
                .exit_code,
            0);
  EXPECT_GT(ReadHostFile(folder_ / "old").size(), 100u);
}

TEST_F(ExportCommandTest, AFailedExportLeavesNoManifest) {
  const ProgramResult full =
      Export({"--manifest", "manifest", "disk.qcow2", "/dev/full"});
  EXPECT_EQ(full.exit_code, 7);
  EXPECT_FALSE(Exists("manifest"));
  const ProgramResult nowhere =
      Export({"--manifest", "missing/manifest", "disk.qcow2", "copy.raw"});
  EXPECT_EQ(nowhere.exit_code, 7);
  EXPECT_FALSE(Exists("copy.raw"));
}

TEST_F(ExportCommandTest, AFileNameThatSha256sumEscapesIsEscaped) {
  const ProgramResult result =
      Export({"--hash", "sha256", "--length", "1M", "disk.qcow2", "a\\\nb"});
  EXPECT_EQ(result.exit_code, 0);
  RunTool({"sha256sum", "--check", "--strict", "-"}, result.out,
          folder_.path());
}

TEST_F(ExportCommandTest, ManyThreadsAndOneGiveTheSame) {
  for (const char* threads : {"1", "2", "33"}) {
    EXPECT_EQ(Export({"--threads", threads, "--force", "--hash", "sha256",
                      "disk.qcow2", "copy.raw"})
                  .out,
              Sha256(Plaintext()) + "  copy.raw\n");
    EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
  }
}

TEST_F(ExportCommandTest, AnExistingFileIsKeptUnlessForced) {
  WriteHostFile(folder_ / "copy.raw", "precious");
  const ProgramResult refused = Export({"disk.qcow2", "copy.raw"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("copy.raw"));
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_EQ(ReadHostFile(folder_ / "copy.raw"), ToBytes("precious"));
  EXPECT_EQ(Export({"--force", "disk.qcow2", "copy.raw"}).exit_code, 0);
  EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
}

TEST_F(ExportCommandTest, OldContentOfAForcedFileDoesNotShowInHoles) {
  WriteHostFile(folder_ / "copy.raw", std::string(kImageSize + 4096, 'x'));
  EXPECT_EQ(Export({"--force", "disk.qcow2", "copy.raw"}).exit_code, 0);
  EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
}

TEST_F(ExportCommandTest, FilesOfTheImageAreNeverOverwritten) {
  MakeImage("top.qcow2", "backing_file=disk.qcow2,backing_fmt=qcow2");
  std::filesystem::create_symlink("disk.qcow2", folder_ / "link");
  std::filesystem::create_hard_link(folder_ / "disk.qcow2", folder_ / "hard");
  const Bytes before = ReadHostFile(folder_ / "disk.qcow2");
  for (const char* image : {"disk.qcow2", "top.qcow2"}) {
    for (const char* target : {"disk.qcow2", "link", "hard", "/dev/stdout"}) {
      const ProgramResult result =
          RunProgram({"sh", "-c",
                      "exec \"$0\" export --key-file key --force $1 $2 >> hard",
                      PELLUCID_PROGRAM, image, target},
                     "", folder_.path());
      EXPECT_EQ(result.exit_code, 2) << image << " to " << target;
      EXPECT_THAT(result.err, HasSubstr("part of the image"));
    }
  }
  const ProgramResult appended = RunProgram(
      {"sh", "-c", "exec \"$0\" export --key-file key disk.qcow2 - >> hard",
       PELLUCID_PROGRAM},
      "", folder_.path());
  EXPECT_EQ(appended.exit_code, 2);
  EXPECT_TRUE(ReadHostFile(folder_ / "disk.qcow2") == before);
}

TEST_F(ExportCommandTest, FilesThatTheImageNamesInAnySpellingAreKept) {
  struct Names {
    const char* backing;  // As the image has it.
    const char* target;
  };
  WriteHostFile(folder_ / "plain", std::string(1 << 20, 'p'));
  std::filesystem::create_symlink("plain", folder_ / "symlink");
  std::filesystem::create_hard_link(folder_ / "plain", folder_ / "hardlink");
  const Bytes before = ReadHostFile(folder_ / "plain");
  for (const Names& names :
       {Names{"plain", "plain"}, Names{"./plain", "symlink"},
        Names{"file:plain", "plain"}, Names{"file:plain", "hardlink"},
        Names{R"(json:{"driver":"raw","file":{"driver":"file",)"
              R"("filename":"plain"}})",
              "plain"},
        Names{R"(json:{"file.filename":"symlink"})", "hardlink"}}) {
    SCOPED_TRACE(std::string(names.backing) + " to " + names.target);
    RunTool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b",
             names.backing, "-F", "raw", "top", "1M"},
            "", folder_.path());
    const ProgramResult result = Export({"--force", "top", names.target});
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr("part of the image"));
    EXPECT_TRUE(ReadHostFile(folder_ / "plain") == before);
  }
}

TEST_F(ExportCommandTest, DataFilesAreKeptWhateverTheirName) {
  for (const char* name :
       {"data", "file:data", R"(json:{"driver":"file",,"filename":"data"})"}) {
    SCOPED_TRACE(name);
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
             "data_file=data,data_file_raw=on", "image", "1M"},
            "", folder_.path());
    RunTool({"qemu-img", "amend", "-f", "qcow2", "-o",
             std::string("data_file=") + name, "image"},
            "", folder_.path());
    const Bytes before = ReadHostFile(folder_ / "data");
    const ProgramResult result = Export({"--force", "image", "data"});
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr("part of the image"));
    EXPECT_TRUE(ReadHostFile(folder_ / "data") == before);
  }
}

TEST_F(ExportCommandTest, DataFileMayBeNamedByTheUser) {
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
           "data_file=data,data_file_raw=on", "image", "1M"},
          "", folder_.path());
  WriteHostFile(folder_ / "moved", Noise(1 << 20, 1));
  std::filesystem::remove(folder_ / "data");
  EXPECT_EQ(Export({"image", "copy.raw"}).exit_code, 7);
  const ProgramResult result =
      Export({"--data-file", "moved", "image", "copy.raw"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(ReadHostFile(folder_ / "copy.raw"),
            ReadHostFile(folder_ / "moved"));
}

TEST_F(ExportCommandTest, FilesOfTheHeadersContainerAreKept) {
  RunTool({"cryptsetup", "luksFormat", "-q", "--type", "luks1",
           "--pbkdf-force-iterations", "1000", "--header", "base", "--key-file",
           "key", "payload"},
          "", MakePayload());
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw",
           "header"},
          "", folder_.path());
  for (const char* target : {"base", "header", "payload"}) {
    const Bytes before = ReadHostFile(folder_ / target);
    const ProgramResult result =
        Export({"--force", "--header", "header", "--header-format", "qcow2",
                "payload", target});
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr("part of the image"));
    EXPECT_TRUE(ReadHostFile(folder_ / target) == before);
  }
  EXPECT_EQ(Export({"--header", "header", "payload", "copy.raw"}).exit_code, 0);
}

TEST_F(ExportCommandTest, AFolderIsNoTarget) {
  EXPECT_EQ(Export({"--force", "disk.qcow2", "."}).exit_code, 2);
  EXPECT_EQ(Export({"disk.qcow2", "missing/copy.raw"}).exit_code, 7);
}

TEST_F(ExportCommandTest, AReaderThatGoesAwayEndsItQuietly) {
  const ProgramResult result = RunProgram(
      {"bash", "-c",
       "\"$0\" export --key-file key disk.qcow2 - | head -c 5 >/dev/null; "
       "exit ${PIPESTATUS[0]}",
       PELLUCID_PROGRAM},
      "", folder_.path());
  EXPECT_EQ(result.exit_code, 128 + SIGPIPE);
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(ExportCommandTest, AFullDiskLeavesNoFile) {
  const ProgramResult full = Export({"disk.qcow2", "/dev/full"});
  EXPECT_EQ(full.exit_code, 7);
  EXPECT_THAT(full.err, HasSubstr("No space left"));
  const ProgramResult limited = RunProgram(
      {"bash", "-c",
       "ulimit -f 100; exec \"$0\" export --key-file key disk.qcow2 copy.raw",
       PELLUCID_PROGRAM},
      "", folder_.path());
  EXPECT_EQ(limited.exit_code, 7);
  EXPECT_THAT(limited.err, HasSubstr("copy.raw: File too large"));
  EXPECT_FALSE(Exists("copy.raw"));
}

TEST_F(ExportCommandTest, AWrongPassphraseHasItsOwnExitCode) {
  KeyFile("wrong", "wrong");
  const ProgramResult result =
      RunPellucid({"export", "--key-file", "wrong", "disk.qcow2", "copy.raw"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("disk.qcow2"));
  EXPECT_FALSE(Exists("copy.raw"));
}

TEST_F(ExportCommandTest, ANewlineInAKeyFileCounts) {
  KeyFile(std::string(kPassphrase) + "\n", "newline");
  EXPECT_EQ(
      RunPellucid({"export", "--key-file", "newline", "disk.qcow2", "copy.raw"})
          .exit_code,
      3);
}

TEST_F(ExportCommandTest, KeyFilesAreTriedInTurnAndMayBeStandardInput) {
  KeyFile("wrong", "wrong");
  EXPECT_EQ(RunPellucid({"export", "--key-file", "wrong", "--key-file", "-",
                         "disk.qcow2", "copy.raw"},
                        kPassphrase)
                .exit_code,
            0);
  EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
  EXPECT_EQ(RunPellucid({"export", "--key-file", "-", "--key-file", "-",
                         "disk.qcow2", "other.raw"})
                .exit_code,
            2);
}

TEST_F(ExportCommandTest, OneKeyFilePerLayerOpensABackingChain) {
  MakeImage("base.qcow2", "encrypt.format=luks,encrypt.iter-time=10", "base");
  MakeImage("top.qcow2",
            "backing_file=base.qcow2,backing_fmt=qcow2,encrypt.format=luks,"
            "encrypt.iter-time=10",
            "top");
  KeyFile("base", "base.key");
  KeyFile("top", "top.key");
  for (const bool top_first : {true, false}) {
    const ProgramResult result = RunPellucid(
        {"export", "--force", "--key-file", top_first ? "top.key" : "base.key",
         "--key-file", top_first ? "base.key" : "top.key", "top.qcow2",
         "copy.raw"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
  }
  EXPECT_EQ(
      RunPellucid({"export", "--key-file", "top.key", "top.qcow2", "other.raw"})
          .exit_code,
      3);
}

TEST_F(ExportCommandTest, BadKeyFilesAreNamed) {
  for (const auto& [path, exit_code] : std::vector<std::pair<std::string, int>>{
           {"missing", 7}, {".", 7}, {"/dev/zero", 2}}) {
    const ProgramResult result =
        RunPellucid({"export", "--key-file", path, "disk.qcow2", "copy.raw"});
    EXPECT_EQ(result.exit_code, exit_code) << path;
    EXPECT_THAT(result.err, HasSubstr("pellucid: " + path + ": "));
  }
}

TEST_F(ExportCommandTest, WithoutTerminalAndKeyFileTheRemedyIsNamed) {
  const ProgramResult result =
      RunPellucid({"export", "disk.qcow2", "copy.raw"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--key-file"));
}

TEST_F(ExportCommandTest, CiphertextNeedsNoPassphrase) {
  const ProgramResult result =
      RunPellucid({"export", "--encryption", "none", "disk.qcow2", "copy.raw"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(static_cast<uint64_t>(StatOf("copy.raw").st_size), kImageSize);
  EXPECT_FALSE(ReadHostFile(folder_ / "copy.raw") == Plaintext());
}

}  // namespace
}  // namespace pellucid
