// Which of the files that an image names are opened.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/named_file.h"
#include "engine/open_image.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kSize = 1 << 20;

class NamedFileRulesTest : public ::testing::Test {
 protected:
  NamedFileRulesTest() {
    for (const char* name : {"vm", "bases/old", "bases2"}) {
      fs::create_directories(folder_ / name);
    }
    for (const char* name :
         {"vm/base", "bases/base", "bases/old/base", "bases2/base"}) {
      WriteHostFile(folder_ / name, Noise(kSize, 1));
    }
  }

  // An image in `vm` that names `backing`.
  OpenOptions ImageOn(const std::string& backing) {
    RunTool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b",
             backing, folder_ / "vm/disk.qcow2", std::to_string(kSize)});
    OpenOptions options;
    options.image = folder_ / "vm/disk.qcow2";
    return options;
  }

  void ExpectOpened(const OpenOptions& options) {
    EXPECT_EQ(FirstDifference(ReadAll(*OpenDevice(options)), Noise(kSize, 1)),
              "");
    EXPECT_EQ(DescribeImage(options).backing_error, "");
  }
  // Why `options` are refused; `info` says the same.
  std::string Refusal(const OpenOptions& options) {
    const std::string text =
        ThrownText<NotAllowed>([&] { OpenDevice(options); });
    EXPECT_EQ(DescribeImage(options).backing_error, text);
    return text;
  }

  ScratchFolder folder_;
};

TEST_F(NamedFileRulesTest, FilesAreAnywhereUnlessFoldersAreNamed) {
  ExpectOpened(ImageOn("base"));
  ExpectOpened(ImageOn(folder_ / "bases/old/base"));
}

TEST_F(NamedFileRulesTest, FilesAreBelowTheFoldersThatAreNamed) {
  for (const char* name : {"../bases/base", "../bases/old/base"}) {
    SCOPED_TRACE(name);
    OpenOptions options = ImageOn(name);
    options.allowed_paths = {folder_ / "bases2"};
    EXPECT_THAT(Refusal(options),
                AllOf(HasSubstr("disk.qcow2"), HasSubstr(name),
                      HasSubstr("--allow-path")));
    options.allowed_paths.push_back(folder_ / "vm/../bases");
    ExpectOpened(options);
  }
  // The folder of the image is no exception, nor is a longer name.
  OpenOptions options = ImageOn("base");
  options.allowed_paths = {folder_ / "bases"};
  Refusal(options);
  options = ImageOn(folder_ / "bases2/base");
  options.allowed_paths = {folder_ / "bases"};
  Refusal(options);
}

TEST_F(NamedFileRulesTest, OneFileIsNamedByItself) {
  OpenOptions options = ImageOn("base");
  options.allowed_paths = {folder_ / "vm/base"};
  ExpectOpened(options);
  options = ImageOn("../bases/base");
  options.allowed_paths = {folder_ / "vm/base"};
  Refusal(options);
}

TEST_F(NamedFileRulesTest, LinksCountForWhereTheyLead) {
  fs::create_symlink(folder_ / "bases/base", folder_ / "vm/link");
  fs::create_directory_symlink(folder_ / "bases", folder_ / "vm/folder");
  for (const char* name : {"link", "folder/base", "folder/../bases/base"}) {
    SCOPED_TRACE(name);
    OpenOptions options = ImageOn(name);
    options.allowed_paths = {folder_ / "vm"};
    EXPECT_THAT(Refusal(options), HasSubstr((folder_ / "bases/base").native()));
    options.allowed_paths = {folder_ / "vm/folder"};
    ExpectOpened(options);
  }
}

TEST_F(NamedFileRulesTest, EveryImageOfAChainIsJudged) {
  RunTool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b",
           folder_ / "bases2/base", folder_ / "bases/middle.qcow2", "1M"});
  RunTool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b",
           "../bases/middle.qcow2", folder_ / "vm/disk.qcow2", "1M"});
  OpenOptions options;
  options.image = folder_ / "vm/disk.qcow2";
  options.allowed_paths = {folder_ / "bases"};
  EXPECT_THAT(ThrownText<NotAllowed>([&] { OpenDevice(options); }),
              AllOf(HasSubstr("middle.qcow2: its backing file"),
                    HasSubstr("bases2/base")));
  options.allowed_paths.push_back(folder_ / "bases2");
  ExpectOpened(options);
}

TEST_F(NamedFileRulesTest, DataFilesAreJudgedUnlessTheUserNamesThem) {
  const fs::path file = folder_ / "bases/data";
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
           "data_file_raw=on,data_file=" + file.native(),
           folder_ / "vm/disk.qcow2", "1M"});
  WriteHostFile(file, Noise(kSize, 1));
  OpenOptions options;
  options.image = folder_ / "vm/disk.qcow2";
  options.allowed_paths = {folder_ / "vm"};
  EXPECT_THAT(Refusal(options), HasSubstr("its data file"));
  EXPECT_EQ(DescribeImage(options).qcow2->data_file_path, "");
  options.allowed_paths = {folder_ / "bases"};
  ExpectOpened(options);
  EXPECT_EQ(DescribeImage(options).qcow2->data_file_path, file);
  options.allowed_paths = {folder_ / "vm"};
  options.data_file = file;
  ExpectOpened(options);
}

TEST_F(NamedFileRulesTest, DevicesAreOpenedOnlyIfTheyAreNamedThemselves) {
  if (geteuid() != 0) {
    ASSERT_EQ(getenv("CI"), nullptr) << "loop devices need root";
    GTEST_SKIP() << "loop devices need root";
  }
  std::string device = RunTool(
      {"losetup", "--find", "--show", "--read-only", folder_ / "bases/base"});
  device.pop_back();  // The end of the line.
  const std::string json =
      R"(json:{"driver":"host_device","filename":")" + device + "\"}";
  for (const std::string& name : {device, json}) {
    SCOPED_TRACE(name);
    OpenOptions options = ImageOn(name);
    EXPECT_THAT(Refusal(options), HasSubstr("--allow-path " + device));
    options.allowed_paths = {"/dev"};
    EXPECT_THAT(Refusal(options), HasSubstr("--allow-path " + device));
    options.allowed_paths = {"/dev", device};
    ExpectOpened(options);
  }
  // As an image the user has named it.
  OpenOptions options;
  options.image = device;
  ExpectOpened(options);
  RunTool({"losetup", "--detach", device});
}

TEST_F(NamedFileRulesTest, OtherSpecialFilesAreNeverOpened) {
  ASSERT_EQ(mkfifo((folder_ / "vm/pipe").c_str(), 0600), 0);
  for (const char* name : {"pipe", "/dev/zero", "/dev/tty", "../bases"}) {
    SCOPED_TRACE(name);
    OpenOptions options = ImageOn(name);
    options.allowed_paths = {folder_ / "vm", folder_ / "vm/pipe", "/dev",
                             "/dev/zero"};
    EXPECT_THAT(ThrownText<CorruptImage>([&] { OpenDevice(options); }),
                HasSubstr("name a regular file or a block device"));
  }
}

TEST_F(NamedFileRulesTest, AllowedPathThatIsNotThereIsAMistake) {
  OpenOptions options = ImageOn("base");
  options.allowed_paths = {folder_ / "nowhere"};
  EXPECT_THAT(ThrownText<UsageError>([&] { OpenDevice(options); }),
              AllOf(HasSubstr("--allow-path"), HasSubstr("nowhere")));
}

}  // namespace
}  // namespace pellucid
