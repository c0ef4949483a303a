#include "tools/resize_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(NewSizeTest, SignsMakeChanges) {
  EXPECT_EQ(cli::ParseNewSize("10G").bytes, uint64_t{10} << 30);
  EXPECT_EQ(cli::ParseNewSize("10G").kind, NewSize::Kind::kExactly);
  EXPECT_EQ(cli::ParseNewSize("+1MiB").bytes, kMiB);
  EXPECT_EQ(cli::ParseNewSize("+1MiB").kind, NewSize::Kind::kMore);
  EXPECT_EQ(cli::ParseNewSize("-512").bytes, 512U);
  EXPECT_EQ(cli::ParseNewSize("-512").kind, NewSize::Kind::kLess);
  for (const char* text : {"", "+", "-", "+-1", "1X", "x", "99999999999G"}) {
    EXPECT_THROW(cli::ParseNewSize(text), UsageError) << text;
  }
}

class ResizeCommandTest : public EncryptedImageTest {
 protected:
  ProgramResult Resize(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {"resize"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return RunPellucid(words);
  }
  void MustResize(const std::vector<std::string>& arguments) {
    const ProgramResult result = Resize(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, IsEmpty());
  }
  void ExpectRefused(const std::vector<std::string>& arguments, int exit_code,
                     const std::string& text) {
    const ProgramResult result = Resize(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr(text));
  }
  // `encryption` as in encrypt.format.
  void CheckWithQemu(const std::string& image,
                     const std::string& encryption = "") {
    std::string open =
        "driver=qcow2,file.filename=" + (folder_ / image).native();
    if (!encryption.empty()) {
      open += ",encrypt.key-secret=key,encrypt.format=" + encryption;
    }
    const ProgramResult result =
        RunProgram({"qemu-img", "check", "--object",
                    "secret,id=key,file=" + (folder_ / KeyFile()).native(),
                    "--image-opts", open});
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  }

  Bytes Content(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {"export", "--key-file", KeyFile()};
    words.insert(words.end(), arguments.begin(), arguments.end());
    words.push_back("-");
    const ProgramResult result = RunPellucid(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const auto* begin = reinterpret_cast<const std::byte*>(result.out.data());
    return {begin, begin + result.out.size()};
  }

  // A LUKS volume of cryptsetup with 4 MiB of plaintext.
  void MakeVolume(const std::string& name, const std::string& type,
                  std::vector<std::string> options = {}) {
    WriteHostFile(folder_ / name, Bytes(20 * kMiB));
    std::vector<std::string> command = {"cryptsetup",
                                        "luksFormat",
                                        "-q",
                                        "--type",
                                        type,
                                        "--pbkdf",
                                        "pbkdf2",
                                        "--pbkdf-force-iterations",
                                        "1000",
                                        "--key-file",
                                        folder_ / KeyFile()};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(folder_ / name);
    RunTool(command);
  }
};

TEST_F(ResizeCommandTest, EncryptedImageGrowsAndShrinksWithoutAPassphrase) {
  MakeImage("disk.qcow2");
  Bytes content = Content({"disk.qcow2"});
  // No key file: the size is a multiple of the cluster.
  MustResize({"disk.qcow2", "+3M"});
  content.resize(kImageSize + 3 * kMiB);
  EXPECT_TRUE(Content({"disk.qcow2"}) == content);
  CheckWithQemu("disk.qcow2", "luks");
  const ProgramResult said = Resize({"--shrink", "disk.qcow2", "-60M"});
  EXPECT_EQ(said.exit_code, 0) << said.err;
  EXPECT_THAT(said.out,
              HasSubstr("7 MiB (7340032 bytes) now, 67 MiB (70254592 bytes)"));
  content.resize(7 * kMiB);
  EXPECT_TRUE(Content({"disk.qcow2"}) == content);
  CheckWithQemu("disk.qcow2", "luks");
}

// The rest of the last cluster has to be encrypted zeros.
TEST_F(ResizeCommandTest, PassphraseIsAskedForWhereDataIsBehindTheEnd) {
  for (const std::string encryption : {"luks", "aes"}) {
    MakeImage("disk.qcow2", encryption == "aes"
                                ? "encrypt.format=aes"
                                : "encrypt.format=luks,encrypt.iter-time=10");
    Bytes content = Content({"disk.qcow2"});
    const uint64_t cut = kDataOffset + 5 * 512;
    MustResize({"--shrink", "disk.qcow2", std::to_string(cut)});
    ExpectRefused({"disk.qcow2", "20M"}, 2, "to ask for a passphrase");
    content.resize(cut);
    EXPECT_TRUE(Content({"disk.qcow2"}) == content);
    MustResize({"--key-file", KeyFile(), "disk.qcow2", "20M"});
    content.resize(20 * kMiB);
    EXPECT_TRUE(Content({"disk.qcow2"}) == content);
    CheckWithQemu("disk.qcow2", encryption);
    std::filesystem::remove(folder_ / "disk.qcow2");
  }
}

TEST_F(ResizeCommandTest, RawFileIsResized) {
  const Bytes content = Noise(3 * kMiB, 1);
  WriteHostFile(folder_ / "raw", content);
  MustResize({"raw", "4M"});
  Bytes expected = content;
  expected.resize(4 * kMiB);
  EXPECT_TRUE(ReadHostFile(folder_ / "raw") == expected);
  MustResize({"raw", "--shrink", "-3M"});
  expected.resize(kMiB);
  EXPECT_TRUE(ReadHostFile(folder_ / "raw") == expected);
}

// The size is that of the plaintext, wherever it begins in the file.
TEST_F(ResizeCommandTest, LuksVolumesKeepTheirHeader) {
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"luks1"},
        {"luks2"},
        {"luks2", "--sector-size", "4096"}}) {
    MakeVolume("volume", options[0], {options.begin() + 1, options.end()});
    const Bytes content = Content({"volume"});
    const uint64_t header = 20 * kMiB - content.size();
    MustResize({"volume", "+1M"});
    EXPECT_EQ(std::filesystem::file_size(folder_ / "volume"), 21 * kMiB);
    Bytes larger = Content({"volume"});
    ASSERT_EQ(larger.size(), content.size() + kMiB);
    larger.resize(content.size());
    EXPECT_TRUE(larger == content);
    MustResize({"--shrink", "volume", "1M"});
    EXPECT_EQ(std::filesystem::file_size(folder_ / "volume"), header + kMiB);
    larger.resize(kMiB);
    EXPECT_TRUE(Content({"volume"}) == larger);
    // Fewer bytes than a sector more.
    if (options.size() > 1) {
      ExpectRefused({"volume", "+512"}, 2, "not a multiple of 4096");
    }
  }
}

TEST_F(ResizeCommandTest, PayloadOfADetachedHeaderIsResized) {
  WriteHostFile(folder_ / "payload.raw", Bytes(kMiB));
  WriteHostFile(folder_ / "hdr", Bytes(16 * kMiB));
  RunTool({"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf",
           "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file",
           folder_ / KeyFile(), "--header", folder_ / "hdr",
           folder_ / "payload.raw"});
  const Bytes header = ReadHostFile(folder_ / "hdr");
  MustResize({"--header", "hdr", "payload.raw", "2M"});
  EXPECT_EQ(Content({"--header", "hdr", "payload.raw"}).size(), 2 * kMiB);
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", folder_ / "payload.qcow2",
           "1M"});
  MustResize({"--header", "hdr", "payload.qcow2", "3M"});
  EXPECT_EQ(Content({"--header", "hdr", "payload.qcow2"}).size(), 3 * kMiB);
  CheckWithQemu("payload.qcow2");
  EXPECT_TRUE(ReadHostFile(folder_ / "hdr") == header);
}

// A LUKS volume in the guest data: the container follows the plaintext.
TEST_F(ResizeCommandTest, VolumeInsideQcow2IsResized) {
  MakeVolume("volume", "luks1");
  RunTool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2",
           folder_ / "volume", folder_ / "disk.qcow2"});
  const Bytes content = Content({"disk.qcow2"});
  MustResize({"disk.qcow2", "+4M"});
  Bytes larger = Content({"disk.qcow2"});
  ASSERT_EQ(larger.size(), content.size() + 4 * kMiB);
  larger.resize(content.size());
  EXPECT_TRUE(larger == content);
  CheckWithQemu("disk.qcow2");
}

// What the backing file has behind the old end must not appear.
TEST_F(ResizeCommandTest, LongerBackingFileStaysHidden) {
  WriteHostFile(folder_ / "base.raw", Noise(4 * kMiB, 2));
  for (const char* version : {"compat=1.1", "compat=0.10"}) {
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o", version, "-F",
             "raw", "-b", "base.raw", folder_ / "top.qcow2",
             std::to_string(kMiB + 512)});
    Bytes content = Content({"top.qcow2"});
    MustResize({"top.qcow2", "6M"});
    content.resize(6 * kMiB);
    EXPECT_TRUE(Content({"top.qcow2"}) == content);
    RunTool({"qemu-img", "convert", "-O", "raw", folder_ / "top.qcow2",
             folder_ / "flat"});
    EXPECT_TRUE(ReadHostFile(folder_ / "flat") == content);
    CheckWithQemu("top.qcow2");
  }
  EXPECT_TRUE(ReadHostFile(folder_ / "base.raw") == Noise(4 * kMiB, 2));
}

TEST_F(ResizeCommandTest, MistakesAreNamed) {
  WriteHostFile(folder_ / "raw", Bytes(4096));
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", folder_ / "disk.qcow2",
           "1M"});
  const Bytes before = ReadHostFile(folder_ / "disk.qcow2");
  ExpectRefused({"disk.qcow2", "512K"}, 2, "--shrink");
  ExpectRefused({"disk.qcow2", "-512K"}, 2, "--shrink");
  ExpectRefused({"--shrink", "disk.qcow2", "-2M"}, 2, "nothing would be left");
  ExpectRefused({"--shrink", "disk.qcow2", "0"}, 2, "nothing would be left");
  ExpectRefused({"disk.qcow2", "+1"}, 2, "not a multiple of 512");
  ExpectRefused({"disk.qcow2", "+15E"}, 2, "no image can have");
  ExpectRefused({"disk.qcow2", "2X"}, 2, "SIZE is a number of bytes");
  ExpectRefused({"disk.qcow2"}, 2, "SIZE is missing");
  ExpectRefused({"--read-only", "disk.qcow2", "2M"}, 2, "--read-only");
  ExpectRefused({"absent", "2M"}, 7, "absent");
  EXPECT_TRUE(ReadHostFile(folder_ / "disk.qcow2") == before);
}

TEST_F(ResizeCommandTest, LimitOnFileSizesIsAnErrorToReport) {
  WriteHostFile(folder_ / "raw", Bytes(kMiB));
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", folder_ / "qcow2", "1M"});
  const Bytes before = ReadHostFile(folder_ / "qcow2");
  // Of 2 MiB, in units of 512 bytes; the L1 table of a PiB is longer.
  for (const std::string image : {"raw 4M", "qcow2 1024T"}) {
    const ProgramResult result =
        RunProgram({"sh", "-c", "ulimit -f 4096; exec \"$0\" resize " + image,
                    PELLUCID_PROGRAM},
                   "", folder_.path());
    EXPECT_EQ(result.exit_code, 7) << result.err;
    EXPECT_THAT(result.err, HasSubstr("File too large"));
  }
  EXPECT_EQ(std::filesystem::file_size(folder_ / "raw"), kMiB);
  EXPECT_TRUE(ReadHostFile(folder_ / "qcow2") == before);
}

}  // namespace
}  // namespace pellucid
