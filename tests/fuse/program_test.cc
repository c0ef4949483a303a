// `pellucid mount` and `pellucid umount` from their command lines.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "fuse/mount_table.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/program_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kPassphrase[] = "open sesame";
constexpr size_t kSize = 8 << 20;

class MountCommandTest : public ProgramTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(ProgramTest::SetUp());
    content_ = Noise(kSize, 1);
    std::fill(content_.begin() + (2 << 20), content_.begin() + (3 << 20),
              std::byte{0});
    WriteHostFile(folder() / "plain", content_);
    MakeFile("key", kPassphrase);
  }

  // Converts the content to a qcow2 image, encrypted in QEMU's old way: unlike
  // LUKS that costs qemu-img no time, and the program opens it alike.
  void MakeImage(const std::string& name = "image") {
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "--object",
             std::string("secret,id=key,data=") + kPassphrase, "-o",
             "encrypt.format=aes,encrypt.key-secret=key", name,
             std::to_string(kSize)},
            "", folder());
    RunTool({"qemu-img", "convert", "-n", "--object",
             std::string("secret,id=key,data=") + kPassphrase, "-f", "raw",
             "plain", "--target-image-opts",
             "driver=qcow2,encrypt.key-secret=key,file.filename=" + name},
            "", folder());
  }

  // A LUKS1 image whose only key is that of kPassphrase.
  void MakeLuksImage() {
    for (int attempt = 0;; ++attempt) {
      const ProgramResult result = RunProgram(
          {"qemu-img", "create", "-q", "-f", "qcow2", "--object",
           std::string("secret,id=key,data=") + kPassphrase, "-o",
           "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=100",
           "image", std::to_string(kSize)},
          "", folder());
      if (result.exit_code == 0) return;
      // qemu-img now and then finds that it cannot tell its own speed.
      ASSERT_TRUE(attempt < 20 &&
                  result.err.find("CPU usage") != std::string::npos)
          << result.err;
    }
  }

  // A command line that must fail; gives the message, which is one line.
  std::string MessageOf(const std::vector<std::string>& arguments,
                        int exit_code) {
    const ProgramResult result = Pellucid(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1)
        << result.err;
    EXPECT_FALSE(IsMounted(directory()));
    EXPECT_FALSE(IsMounted(file()));
    return result.err;
  }

  Bytes content_;
};

TEST_F(MountCommandTest, PlaintextIsThereWhenTheCommandReturns) {
  MakeImage();
  ASSERT_NO_FATAL_FAILURE(MustRun(
      {"mount", "--read-only", "--key-file", "key", "image", "directory"}));
  EXPECT_TRUE(ReadHostFile(disk()) == content_);
  const auto mount = FindMount(directory());
  ASSERT_TRUE(mount.has_value());
  EXPECT_EQ(mount->type, "fuse.pellucid");
  EXPECT_EQ(mount->source, (folder() / "image").string());
  MustRun({"umount", "directory"});
}

TEST_F(MountCommandTest, ToolsCopyTheFileWithItsHoles) {
  MakeImage();
  ASSERT_NO_FATAL_FAILURE(
      MustRun({"mount", "--read-only", "--key-file", "key", "image", "file"}));
  RunTool({"cp", "--sparse=auto", "file", "copy"}, "", folder());
  RunTool(
      {"dd", "if=file", "of=direct", "bs=1M", "iflag=direct", "status=none"},
      "", folder());
  EXPECT_TRUE(ReadHostFile(folder() / "copy") == content_);
  EXPECT_TRUE(ReadHostFile(folder() / "direct") == content_);
  struct stat shown = {};
  struct stat copied = {};
  ASSERT_EQ(stat(file().c_str(), &shown), 0);
  ASSERT_EQ(stat((folder() / "copy").c_str(), &copied), 0);
  EXPECT_EQ(shown.st_blocks, static_cast<blkcnt_t>((kSize - (1 << 20)) / 512));
  EXPECT_LE(copied.st_blocks, shown.st_blocks + 64);
  MustRun({"umount", "file"});
}

TEST_F(MountCommandTest, NothingOfTheImageChanges) {
  MakeImage();
  const Bytes before = ReadHostFile(folder() / "image");
  // An access time that any read would move, even with relatime.
  RunTool({"touch", "-a", "-d", "2001-02-03", "image"}, "", folder());
  struct stat old_status = {};
  ASSERT_EQ(stat((folder() / "image").c_str(), &old_status), 0);
  ASSERT_NO_FATAL_FAILURE(MustRun(
      {"mount", "--read-only", "--key-file", "key", "image", "directory"}));
  EXPECT_EQ(ReadHostFile(disk()).size(), kSize);
  MustRun({"umount", "directory"});
  struct stat new_status = {};
  ASSERT_EQ(stat((folder() / "image").c_str(), &new_status), 0);
  EXPECT_EQ(new_status.st_atim.tv_sec, old_status.st_atim.tv_sec);
  EXPECT_EQ(new_status.st_mtim.tv_nsec, old_status.st_mtim.tv_nsec);
  EXPECT_EQ(new_status.st_ctim.tv_nsec, old_status.st_ctim.tv_nsec);
  EXPECT_TRUE(ReadHostFile(folder() / "image") == before);
}

TEST_F(MountCommandTest, ImageIsFreeWhenUmountReturns) {
  MakeImage();
  const std::vector<std::string> write = {
      "qemu-io",
      "--object",
      std::string("secret,id=key,data=") + kPassphrase,
      "--image-opts",
      "-c",
      "write 0 512",
      "driver=qcow2,file.filename=image,encrypt.key-secret=key"};
  for (int round = 0; round < 5; ++round) {
    ASSERT_NO_FATAL_FAILURE(MustRun(
        {"mount", "--read-only", "--key-file", "key", "image", "directory"}));
    EXPECT_NE(RunProgram(write, "", folder()).exit_code, 0)
        << "QEMU wrote to an image that is mounted";
    MustRun({"umount", "directory"});
    const ProgramResult result = RunProgram(write, "", folder());
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
}

TEST_F(MountCommandTest, TwoReadersShareAnImage) {
  MakeImage();
  ASSERT_NO_FATAL_FAILURE(MustRun(
      {"mount", "--read-only", "--key-file", "key", "image", "directory"}));
  ASSERT_NO_FATAL_FAILURE(
      MustRun({"mount", "--read-only", "--key-file", "key", "image", "file"}));
  EXPECT_TRUE(ReadHostFile(disk()) == ReadHostFile(file()));
  MustRun({"umount", "file"});
  MustRun({"umount", "directory"});
}

TEST_F(MountCommandTest, ForegroundEndsWithASignalAndExitsWithZero) {
  MakeImage();
  const pid_t server = Fork([&] {
    fs::current_path(folder());
    execl(PELLUCID_PROGRAM, PELLUCID_PROGRAM, "mount", "-f", "--read-only",
          "--key-file", "key", "-o", "ro,noatime", "-o", "fsname=mine", "image",
          "directory", static_cast<char*>(nullptr));
    return 127;
  });
  for (int i = 0; i < 2000 && !fs::exists(disk()); ++i) usleep(10'000);
  EXPECT_EQ(fs::file_size(disk()), kSize);
  EXPECT_EQ(FindMount(directory())->source, "mine");
  const OpenFile file(disk(), O_RDONLY);
  kill(server, SIGTERM);
  EXPECT_EQ(WaitForEnd(server), 0);
  EXPECT_FALSE(IsMounted(directory()));
}

TEST_F(MountCommandTest, WrongPassphraseHasItsExitCodeAndMountsNothing) {
  ASSERT_NO_FATAL_FAILURE(MakeLuksImage());
  MakeFile("wrong", "open barley");
  MessageOf({"mount", "--key-file", "wrong", "image", "directory"}, 3);
  const std::string message = MessageOf(
      {"mount", "-f", "--key-file", "wrong", "image", "directory"}, 3);
  EXPECT_EQ(message.find("barley"), std::string::npos);
}

TEST_F(MountCommandTest, MistakesAreToldBeforeAnythingIsOpened) {
  // There is no image: whoever looked for it would fail with another code.
  const auto mount = [](std::vector<std::string> rest) {
    rest.insert(rest.begin(), {"mount", "--key-file", "key"});
    return rest;
  };
  EXPECT_THAT(MessageOf(mount({"image", "none"}), 2), HasSubstr("mkdir"));
  EXPECT_THAT(
      MessageOf(mount({"--read-only", "-o", "rw", "image", "directory"}), 2),
      HasSubstr("contradicts"));
  EXPECT_THAT(MessageOf(mount({"-o", "bogus", "image", "directory"}), 2),
              HasSubstr("bogus"));
  EXPECT_THAT(MessageOf(mount({"image"}), 2), HasSubstr("MOUNTPOINT"));
  EXPECT_THAT(MessageOf(mount({"image", "/dev/null"}), 2),
              HasSubstr("/dev/null"));
  EXPECT_THAT(MessageOf(mount({"image", "directory"}), 7), HasSubstr("image"));
  MakeImage();
  EXPECT_THAT(MessageOf(mount({"image", "image"}), 2),
              HasSubstr("its own mountpoint"));
}

TEST_F(MountCommandTest, FilesOfTheImageAreNoMountpoints) {
  // The header is told by its name, before anything is opened.
  MakeFile("header", "no header at all");
  EXPECT_THAT(MessageOf({"mount", "--key-file", "key", "--header", "header",
                         "plain", "header"},
                        2),
              HasSubstr("header: this file belongs to the image"));
  // Others only the image names; here it has a name that is no path.
  RunTool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b",
           R"(json:{"driver":"raw","file.filename":"plain"})", "-F", "raw",
           "top", std::to_string(kSize)},
          "", folder());
  fs::create_symlink("plain", folder() / "link");
  for (const char* mountpoint : {"plain", "link"}) {
    EXPECT_THAT(MessageOf({"mount", "--read-only", "top", mountpoint}, 2),
                HasSubstr("plain: this file belongs to the image"));
    EXPECT_FALSE(IsMounted(folder() / "plain"));
  }
}

TEST_F(MountCommandTest, EveryFlagOfTheManualPageIsTakenByTheKernel) {
  ASSERT_NO_FATAL_FAILURE(MustRun(
      {"mount", "--read-only", "-o",
       "dev,suid,exec,async,nodev,nosuid,noexec,sync,dirsync", "-o",
       "atime,relatime,norelatime,strictatime,nostrictatime,lazytime", "-o",
       "nolazytime,diratime,nodiratime,noatime,defaults,nonempty,ro", "plain",
       "directory"}));
  EXPECT_TRUE(ReadHostFile(disk()) == content_);
  MustRun({"umount", "directory"});
}

TEST_F(MountCommandTest, OccupiedMountpointIsRefused) {
  MakeImage();
  ASSERT_NO_FATAL_FAILURE(MustRun(
      {"mount", "--read-only", "--key-file", "key", "image", "directory"}));
  const ProgramResult result = Pellucid(
      {"mount", "--read-only", "--key-file", "key", "image", "directory"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("already mounted"));
  MustRun({"umount", "directory"});
}

TEST_F(MountCommandTest, UmountRefusesWhatIsInUseAndWhatIsNotOurs) {
  MakeImage();
  EXPECT_THAT(MessageOf({"umount", "directory"}, 2),
              HasSubstr("nothing is mounted"));
  EXPECT_THAT(MessageOf({"umount", "/proc"}, 2), HasSubstr("proc"));
  ASSERT_NO_FATAL_FAILURE(MustRun(
      {"mount", "--read-only", "--key-file", "key", "image", "directory"}));
  {
    const OpenFile file(disk(), O_RDONLY);
    const ProgramResult result = Pellucid({"umount", "directory"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr("--lazy"));
    MustRun({"umount", "--lazy", "directory"});
    std::byte first{};
    EXPECT_EQ(pread(file.fd(), &first, 1, 0), 1);
    EXPECT_EQ(first, content_[0]);
  }
  EXPECT_FALSE(IsMounted(directory()));
}

TEST_F(MountCommandTest, HelpNamesEveryOption) {
  const std::string help = Pellucid({"mount", "--help"}).out;
  for (const char* option : {"--foreground", "--options", "--read-only",
                             "--key-file", "--header", "allow_other"}) {
    EXPECT_THAT(help, HasSubstr(option));
  }
  EXPECT_THAT(Pellucid({"mount", "-h"}).out, HasSubstr("--key-file"));
  EXPECT_THAT(Pellucid({"umount", "--help"}).out, HasSubstr("--lazy"));
}

}  // namespace
}  // namespace pellucid::fuse
