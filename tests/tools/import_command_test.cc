#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engine/file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kVolumeSize = 8 * kMiB;
constexpr uint64_t kHeaderBytes = 2 * kMiB;  // Of LUKS1, as cryptsetup has it.

std::string AsText(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A raw LUKS volume, as cryptsetup makes it, and a plain raw image.
class ImportCommandTest : public EncryptedImageTest {
 protected:
  ImportCommandTest() {
    KeyFile();
    const std::filesystem::path volume = folder_ / "volume";
    WriteHostFile(volume, Bytes(kHeaderBytes + kMiB));
    RunTool({"cryptsetup", "luksFormat", "-q", "--type", "luks1",
             "--pbkdf-force-iterations", "1000", "--key-file", folder_ / "key",
             volume});
    std::filesystem::resize_file(volume, kHeaderBytes + kVolumeSize);
    WriteHostFile(folder_ / "plain", Plain());
  }

  // Data, a hole in the file, stored zeros, data that ends within a sector.
  static Bytes Plain() {
    Bytes plain = Noise(5 * kMiB + 777, 1);
    std::fill_n(plain.begin() + kMiB + 5, 2 * kMiB, std::byte{0});
    return plain;
  }

  ProgramResult Import(const std::vector<std::string>& arguments,
                       std::string_view input = "") {
    std::vector<std::string> words = {"import", "--key-file", "key"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return RunPellucid(words, input);
  }

  // The plaintext of an image as it is now.
  Bytes Content(const std::string& image) {
    const ProgramResult result =
        RunPellucid({"export", "--read-only", "--key-file", "key", image, "-"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const auto* begin = reinterpret_cast<const std::byte*>(result.out.data());
    return {begin, begin + result.out.size()};
  }

  // What the image holds once `data` has been put at `offset`.
  static Bytes With(Bytes image, const Bytes& data, uint64_t offset) {
    std::ranges::copy(data, image.begin() + static_cast<ptrdiff_t>(offset));
    return image;
  }

  void ExpectRefused(const std::vector<std::string>& arguments, int exit_code,
                     const std::string& text) {
    const Bytes before = ReadHostFile(folder_ / "volume");
    const ProgramResult result = Import(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr(text));
    EXPECT_TRUE(ReadHostFile(folder_ / "volume") == before);
  }
};

TEST_F(ImportCommandTest, FileReplacesWhatTheImageHeldAndTheRestStays) {
  const Bytes before = Content("volume");
  ASSERT_EQ(before.size(), kVolumeSize);
  const ProgramResult result = Import({"plain", "volume"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_THAT(result.err, IsEmpty());
  EXPECT_TRUE(Content("volume") == With(before, Plain(), 0));
  // Zeros in place of what was there before, whatever the file has them as.
  Bytes zeros(3 * kMiB);
  WriteHostFile(folder_ / "zeros", zeros);
  std::filesystem::resize_file(folder_ / "zeros", 0);
  std::filesystem::resize_file(folder_ / "zeros", zeros.size());
  EXPECT_EQ(Import({"zeros", "volume"}).exit_code, 0);
  EXPECT_TRUE(Content("volume") == With(With(before, Plain(), 0), zeros, 0));
}

TEST_F(ImportCommandTest, OffsetAndThreadCountMakeNoDifferenceToOtherBytes) {
  for (const char* threads : {"1", "5"}) {
    for (const uint64_t offset : {uint64_t{1}, kMiB, 2 * kMiB + 4095}) {
      const Bytes before = Content("volume");
      const ProgramResult result =
          Import({"--offset", std::to_string(offset), "--threads", threads,
                  "plain", "volume"});
      ASSERT_EQ(result.exit_code, 0) << result.err;
      EXPECT_TRUE(Content("volume") == With(before, Plain(), offset));
    }
  }
}

TEST_F(ImportCommandTest, StandardInputDoesAsWell) {
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{}, {"--offset", "4095"}, {"--no-sparse"}}) {
    const Bytes before = Content("volume");
    std::vector<std::string> arguments = options;
    arguments.insert(arguments.end(), {"-", "volume"});
    const ProgramResult result = Import(arguments, AsText(Plain()));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const uint64_t offset = options.size() == 2 ? 4095 : 0;
    EXPECT_TRUE(Content("volume") == With(before, Plain(), offset));
  }
}

TEST_F(ImportCommandTest, QemuReadsWhatWasImported) {
  ASSERT_EQ(Import({"plain", "volume"}).exit_code, 0);
  RunTool({"qemu-img", "convert", "-O", "raw", "--object",
           fmt::format("secret,id=s,data={}", kPassphrase), "--image-opts",
           fmt::format("driver=luks,key-secret=s,file.filename={}",
                       (folder_ / "volume").native()),
           folder_ / "by-qemu"});
  Bytes found = ReadHostFile(folder_ / "by-qemu");
  found.resize(Plain().size());
  EXPECT_TRUE(found == Plain());
}

TEST_F(ImportCommandTest, ZerosTakeNoSpaceInARawImageUnlessAsked) {
  const auto allocated = [&] {
    struct stat status = {};
    EXPECT_EQ(stat((folder_ / "raw").c_str(), &status), 0);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  };
  for (const bool sparse : {false, true}) {
    WriteHostFile(folder_ / "raw", Noise(Plain().size(), 9));
    std::vector<std::string> arguments = {"plain", "raw"};
    if (!sparse) arguments.insert(arguments.begin(), "--no-sparse");
    EXPECT_EQ(Import(arguments).exit_code, 0);
    EXPECT_TRUE(ReadHostFile(folder_ / "raw") == Plain());
    if (sparse) {
      EXPECT_LE(allocated(), 4 * kMiB);
    } else {
      EXPECT_GE(allocated(), 5 * kMiB);
    }
  }
}

TEST_F(ImportCommandTest, HashIsThatOfThePlainFile) {
  const std::string sum = Sha256(Plain());
  EXPECT_EQ(Import({"--hash", "sha256", "plain", "volume"}).out,
            sum + "  plain\n");
  EXPECT_EQ(Import({"--hash", "sha256", "-", "volume"}, AsText(Plain())).out,
            sum + "  -\n");
}

TEST_F(ImportCommandTest, WhatDoesNotFitIsRefusedWithBothSizes) {
  std::filesystem::resize_file(folder_ / "plain", kVolumeSize + 1);
  const std::string size = std::to_string(kVolumeSize);
  ExpectRefused({"plain", "volume"}, 2, size);
  ExpectRefused({"plain", "volume"}, 2, std::to_string(kVolumeSize + 1));
  std::filesystem::resize_file(folder_ / "plain", 100);
  ExpectRefused(
      {"--offset", std::to_string(kVolumeSize - 99), "plain", "volume"}, 2,
      "only 99 from byte");
  ExpectRefused(
      {"--offset", std::to_string(kVolumeSize + 1), "plain", "volume"}, 2,
      size);
}

TEST_F(ImportCommandTest, TooMuchInputIsAnErrorThatSaysWhatTheImageHolds) {
  const ProgramResult result =
      Import({"--offset", std::to_string(kVolumeSize - 100), "-", "volume"},
             std::string(200, 'x'));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("more than the 100 bytes"),
                                HasSubstr("only a part of the import")));
}

TEST_F(ImportCommandTest, FilesOfTheImageAreNoSources) {
  ExpectRefused({"volume", "volume"}, 2, "a part of the image itself");
  std::filesystem::create_hard_link(folder_ / "volume", folder_ / "other");
  ExpectRefused({"other", "volume"}, 2, "a part of the image itself");
}

TEST_F(ImportCommandTest, WhatCannotBeImportedIsRefused) {
  ExpectRefused({"none", "volume"}, 7, "none");
  ExpectRefused({folder_.path(), "volume"}, 2, "directory");
  ExpectRefused({"plain", "no-image"}, 7, "no-image");
  ExpectRefused({"--read-only", "plain", "volume"}, 2, "--read-only");
  ExpectRefused({"--snapshot", "s", "plain", "volume"}, 2, "snapshot");
  ExpectRefused({"--key-file", "-", "-", "volume"}, 2, "standard input");
  ExpectRefused({"--hash", "bogus", "plain", "volume"}, 2, "bogus");
}

TEST_F(ImportCommandTest, ImageThatAnotherUsesIsRefused) {
  {
    const BackgroundProgram writer({"qemu-io", "-f", "raw", folder_ / "volume"},
                                   "qemu-io>");
    ExpectRefused({"plain", "volume"}, 6, "qemu-io");
  }
  const auto reader =
      FileDevice::Open(folder_ / "volume", FileDevice::Sharing::kExclusive);
  ExpectRefused({"plain", "volume"}, 6, "not open to writers");
}

TEST_F(ImportCommandTest, LimitOnFileSizesIsAnErrorToReport) {
  // Of 5 MiB, in units of 512 bytes.
  const ProgramResult result =
      RunProgram({"sh", "-c",
                  "ulimit -f 10240; exec \"$0\" import --key-file key plain "
                  "volume",
                  PELLUCID_PROGRAM},
                 "", folder_.path());
  EXPECT_EQ(result.exit_code, 7) << result.err;
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("volume: "), HasSubstr("File too large"),
                    HasSubstr("holds only a part")));
}

TEST_F(ImportCommandTest, InterruptedImportSaysThatTheImageHoldsAPart) {
  // The input never ends; the signal comes while the program waits for it.
  const ProgramResult result = RunProgram(
      {"sh", "-c",
       fmt::format("mkfifo pipe; sleep 60 > pipe & writer=$!; "
                   "{} import --key-file key - volume < pipe & import=$!; "
                   "sleep 2; kill -TERM $import; wait $import; code=$?; "
                   "kill $writer; exit $code",
                   PELLUCID_PROGRAM)},
      "", folder_.path());
  EXPECT_THAT(result.err, HasSubstr("volume: holds only a part"));
  EXPECT_EQ(result.exit_code, 128 + SIGTERM);
}

}  // namespace
}  // namespace pellucid
