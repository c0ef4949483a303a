#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class VerifyCommandTest : public EncryptedImageTest {
 protected:
  VerifyCommandTest() {
    MakeImage("disk.qcow2");
    KeyFile();
    const ProgramResult result =
        RunPellucid({"export", "--key-file", "key", "--manifest", "manifest",
                     "disk.qcow2", "copy.raw"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }

  ProgramResult Verify(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "verify");
    return RunPellucid(arguments);
  }

  void ChangeCopy(uint64_t offset) {
    Bytes copy = ReadHostFile(folder_ / "copy.raw");
    copy[offset] ^= std::byte{0x80};
    WriteHostFile(folder_ / "copy.raw", copy);
  }
};

TEST_F(VerifyCommandTest, ACopyAndTheImageAreAsTheManifestSays) {
  const ProgramResult copy = Verify({"manifest", "copy.raw"});
  EXPECT_EQ(copy.exit_code, 0) << copy.err;
  EXPECT_THAT(copy.out, HasSubstr("all 67108864 bytes"));
  const ProgramResult image =
      Verify({"--image", "--key-file", "key", "manifest", "disk.qcow2"});
  EXPECT_EQ(image.exit_code, 0) << image.err;
  const ProgramResult ciphertext =
      Verify({"--image", "--encryption", "none", "manifest", "disk.qcow2"});
  EXPECT_EQ(ciphertext.exit_code, 2) << ciphertext.out;
  EXPECT_THAT(Verify({"--quiet", "manifest", "copy.raw"}).out, IsEmpty());
}

TEST_F(VerifyCommandTest, AMountedFileIsCompared) {
  std::filesystem::create_directory(folder_ / "mnt");
  ASSERT_EQ(RunPellucid({"mount", "--read-only", "--key-file", "key",
                         "disk.qcow2", "mnt"})
                .exit_code,
            0);
  const ProgramResult result = Verify({"manifest", "mnt/disk"});
  EXPECT_EQ(RunPellucid({"umount", "mnt"}).exit_code, 0);
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST_F(VerifyCommandTest, TheFirstRangeThatDiffersIsNamed) {
  ChangeCopy(kDataOffset + 5);
  ChangeCopy(40 * kMiB);
  const ProgramResult first = Verify({"manifest", "copy.raw"});
  EXPECT_EQ(first.exit_code, 2);
  EXPECT_EQ(first.out,
            "copy.raw: the 1048576 bytes from byte 10485760 on differ\n");
  const ProgramResult all = Verify({"--all", "--json", "manifest", "copy.raw"});
  EXPECT_EQ(all.exit_code, 2);
  const json report = json::parse(all.out);
  EXPECT_EQ(report["same"], false);
  EXPECT_EQ(report["differences"], json::parse(R"([
    {"offset": 10485760, "length": 1048576, "kind": "content"},
    {"offset": 41943040, "length": 1048576, "kind": "content"}])"));
  const ProgramResult quiet = Verify({"--quiet", "manifest", "copy.raw"});
  EXPECT_EQ(quiet.exit_code, 2);
  EXPECT_THAT(quiet.out, IsEmpty());
}

TEST_F(VerifyCommandTest, ShorterAndLongerCopiesDiffer) {
  std::filesystem::resize_file(folder_ / "copy.raw", kImageSize + 1);
  const ProgramResult longer = Verify({"manifest", "copy.raw"});
  EXPECT_EQ(longer.exit_code, 2);
  EXPECT_THAT(longer.out, HasSubstr("does not end at byte 67108864"));
  std::filesystem::resize_file(folder_ / "copy.raw", kImageSize - 1);
  const ProgramResult shorter = Verify({"manifest", "copy.raw"});
  EXPECT_EQ(shorter.exit_code, 2);
  EXPECT_EQ(shorter.out,
            "copy.raw: ends at byte 67108863, 1 bytes too early\n");
  // Content comes before the end.
  ChangeCopy(kDataOffset);
  EXPECT_THAT(Verify({"manifest", "copy.raw"}).out,
              HasSubstr("from byte 10485760 on differ"));
  const json report =
      json::parse(Verify({"--all", "--json", "manifest", "copy.raw"}).out);
  EXPECT_EQ(
      report["differences"][1],
      json::parse(R"({"offset": 67108863, "length": 1, "kind": "missing"})"));
  std::filesystem::resize_file(folder_ / "copy.raw", 0);
  EXPECT_EQ(Verify({"manifest", "copy.raw"}).exit_code, 2);
}

TEST_F(VerifyCommandTest, APartIsComparedWithACopyAndInItsImage) {
  ASSERT_EQ(RunPellucid({"export", "--key-file", "key", "--offset", "10485759",
                         "--length", "2M", "--manifest", "part", "--chunk-size",
                         "64K", "--chunk-hash", "md5,blake2b", "disk.qcow2",
                         "part.raw"})
                .exit_code,
            0);
  EXPECT_EQ(Verify({"part", "part.raw"}).exit_code, 0);
  EXPECT_EQ(Verify({"part", "copy.raw"}).exit_code, 2);
  EXPECT_EQ(Verify({"--image", "part", "copy.raw"}).exit_code, 0);
  ChangeCopy(kDataOffset);
  EXPECT_EQ(Verify({"--image", "part", "copy.raw"}).out,
            "copy.raw: the 65536 bytes from byte 10485759 on differ\n");
}

TEST_F(VerifyCommandTest, FailuresHaveTheExitCodeOne) {
  WriteHostFile(folder_ / "text", "this is no manifest\n");
  KeyFile("wrong", "wrong");
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{
           {"text", "copy.raw"},
           {"missing", "copy.raw"},
           {"manifest", "missing"},
           {"manifest", "."},
           {"manifest"},
           {"--threads", "0", "manifest", "copy.raw"},
           {"--key-file", "key", "manifest", "copy.raw"},
           {"--image", "--key-file", "wrong", "manifest", "disk.qcow2"}}) {
    const ProgramResult result = Verify(arguments);
    EXPECT_EQ(result.exit_code, 1) << testing::PrintToString(arguments);
    EXPECT_THAT(result.err, HasSubstr("pellucid: "));
  }
}

TEST_F(VerifyCommandTest, ADamagedManifestIsNotTakenForADifference) {
  Bytes manifest = ReadHostFile(folder_ / "manifest");
  manifest[manifest.size() / 2] ^= std::byte{1};
  WriteHostFile(folder_ / "manifest", manifest);
  const ProgramResult result = Verify({"manifest", "copy.raw"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("damaged"));
}

}  // namespace
}  // namespace pellucid
