#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/file_device.h"
#include "engine/writable_file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class SnapshotCommandTest : public EncryptedImageTest {
 protected:
  // Without a key file: nothing may ask for one.
  ProgramResult Snapshot(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {"snapshot"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return RunPellucid(words);
  }
  void MustSnapshot(const std::vector<std::string>& arguments) {
    const ProgramResult result = Snapshot(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, IsEmpty());
    const ProgramResult check = RunProgram(
        {"qemu-img", "check", "--object",
         "secret,id=key,file=" + (folder_ / KeyFile()).native(), "--image-opts",
         "driver=qcow2,encrypt.format=luks,encrypt.key-secret=key,"
         "file.filename=" +
             (folder_ / "disk.qcow2").native()});
    EXPECT_EQ(check.exit_code, 0) << check.out << check.err;
  }

  std::string HashOf(const std::string& snapshot = "") {
    std::vector<std::string> words = {"export", "--key-file", KeyFile(),
                                      "--hash", "sha256",     "--quiet"};
    if (!snapshot.empty()) {
      words.insert(words.end(), {"--snapshot", snapshot});
    }
    words.insert(words.end(), {"disk.qcow2", "/dev/null"});
    const ProgramResult result = RunPellucid(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  }

  void Import(const Bytes& data) {
    WriteHostFile(folder_ / "plain", data);
    const ProgramResult result = RunPellucid(
        {"import", "--quiet", "--key-file", KeyFile(), "plain", "disk.qcow2"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
};

TEST_F(SnapshotCommandTest, SnapshotsOfAnEncryptedImageNeedNoPassphrase) {
  MakeImage("disk.qcow2");
  EXPECT_THAT(Snapshot({"list", "disk.qcow2"}).out, IsEmpty());
  const std::string first = HashOf();
  MustSnapshot({"create", "disk.qcow2", "first"});
  Import(Noise(1 << 20, 3));
  const std::string second = HashOf();
  ASSERT_NE(first, second);
  MustSnapshot({"create", "disk.qcow2", "second"});
  EXPECT_EQ(HashOf("first"), first);
  EXPECT_EQ(HashOf("second"), second);

  EXPECT_THAT(Snapshot({"list", "disk.qcow2"}).out,
              AllOf(HasSubstr("1   first   "), HasSubstr("2   second  ")));
  const auto json =
      nlohmann::json::parse(Snapshot({"list", "--json", "disk.qcow2"}).out);
  ASSERT_EQ(json.size(), 2U);
  EXPECT_EQ(json[1]["name"], "second");
  EXPECT_EQ(json[1]["virtual_size"], kImageSize);

  MustSnapshot({"apply", "disk.qcow2", "first"});
  EXPECT_EQ(HashOf(), first);
  EXPECT_EQ(HashOf("second"), second);
  MustSnapshot({"delete", "disk.qcow2", "1"});
  EXPECT_EQ(HashOf(), first);
  MustSnapshot({"apply", "--quiet", "disk.qcow2", "second"});
  MustSnapshot({"delete", "disk.qcow2", "second"});
  EXPECT_EQ(HashOf(), second);
}

TEST_F(SnapshotCommandTest, MistakesAreNamed) {
  MakeImage("disk.qcow2");
  WriteHostFile(folder_ / "raw", Bytes(4096));
  const struct {
    std::vector<std::string> words;
    int exit_code;
    const char* text;
  } kMistakes[] = {
      {{"create", "disk.qcow2"}, 2, "NAME is missing"},
      {{"list", "disk.qcow2", "x"}, 2, "'x' is one argument too many"},
      {{"remove", "disk.qcow2", "x"}, 2, "'remove' is not list"},
      {{"create", "raw", "x"}, 2, "is not a qcow2 image"},
      {{"list", "raw"}, 2, "is not a qcow2 image"},
      {{"apply", "disk.qcow2", "x"}, 2, "there is no snapshot \"x\""},
      {{"delete", "--force-share", "disk.qcow2", "x"}, 2, "for list only"},
      {{"create", "absent", "x"}, 7, "absent"},
  };
  for (const auto& mistake : kMistakes) {
    const ProgramResult result = Snapshot(mistake.words);
    EXPECT_EQ(result.exit_code, mistake.exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr(mistake.text));
  }
}

TEST_F(SnapshotCommandTest, AnImageThatIsInUseIsNotChanged) {
  const std::filesystem::path image = MakeImage("disk.qcow2");
  {
    const auto reader =
        FileDevice::Open(image, FileDevice::Sharing::kExclusive);
    EXPECT_EQ(Snapshot({"create", "disk.qcow2", "x"}).exit_code, 6);
    EXPECT_EQ(Snapshot({"list", "disk.qcow2"}).exit_code, 0);
  }
  const auto writer = WritableFileDevice::Open(image);
  EXPECT_EQ(Snapshot({"list", "disk.qcow2"}).exit_code, 6);
  EXPECT_EQ(Snapshot({"list", "--force-share", "disk.qcow2"}).exit_code, 0);
}

}  // namespace
}  // namespace pellucid
