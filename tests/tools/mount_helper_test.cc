// mount(8) and fstab(5) at work with mount.pellucid.

#include "tools/mount_helper.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/program_options/errors.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <regex>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/encrypted_image_fixture.h"
#include "tools/open_arguments.h"

namespace pellucid {
namespace {

namespace po = boost::program_options;

using testing::ElementsAre;
using testing::HasSubstr;

std::optional<std::vector<std::string>> Words(
    const std::vector<std::string>& words) {
  cli::OpenArguments open;
  po::options_description table;
  open.AddTo(table);
  return cli::WordsOfMountHelper(words, table);
}

TEST(MountHelper, OptionsOfTheSubcommandGoBehindO) {
  EXPECT_THAT(*Words({"image", "dir", "-o",
                      "key-file=/k,no-backing,uid=5,header=/a\\,b=c"}),
              ElementsAre("--key-file=/k", "--no-backing", "-o", "uid=5",
                          "--header=/a,b=c", "--", "image", "dir"));
}

TEST(MountHelper, WhatIsForOthersIsDropped) {
  EXPECT_THAT(
      *Words({"image", "dir", "-o",
              "rw,noauto,user,users=x,_netdev,nofail,x-systemd.automount,"
              "x-systemd.idle-timeout=5,X-mount.mkdir,comment=mine,ro,,"}),
      ElementsAre("-o", "ro", "--", "image", "dir"));
}

TEST(MountHelper, FlagsOfMountHaveNoEffectButFake) {
  EXPECT_THAT(*Words({"image", "dir", "-nsv", "-t", "pellucid", "-oro"}),
              ElementsAre("-o", "ro", "--", "image", "dir"));
  EXPECT_FALSE(Words({"image", "dir", "-f", "-o", "ro"}));
}

TEST(MountHelper, WrongLinesAreRefused) {
  const std::vector<std::vector<std::string>> wrong = {
      {"image"},
      {"image", "dir", "more"},
      {"image", "dir", "-x"},
      {"image", "dir", "--json"},
      {"image", "dir", "-o"},
      {"image", "dir", "-o", "key-file"},
      {"image", "dir", "-o", "no-backing=1"}};
  for (const auto& words : wrong) {
    EXPECT_THROW(Words(words), po::error) << testing::PrintToString(words);
  }
}

std::string ReadText(const std::filesystem::path& file) {
  const Bytes bytes = ReadHostFile(file);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(MountHelper, ItsManualPageHasTheOptionsOfMount) {
  std::string page = ReadText(
      std::filesystem::path(PELLUCID_TEST_IMAGES).parent_path().parent_path() /
      "packaging" / "mount.pellucid.8");
  page.erase(std::remove(page.begin(), page.end(), '\\'), page.end());
  const std::string help =
      RunProgram({PELLUCID_PROGRAM, "mount", "--help"}).out;
  const std::regex long_option("\n  --([a-z][a-z0-9-]*)");
  size_t options = 0;
  for (std::sregex_iterator match(help.begin(), help.end(), long_option), end;
       match != end; ++match, ++options) {
    const std::string name = (*match)[1];
    EXPECT_TRUE(std::regex_search(page, std::regex("[. ]" + name + "( ,|= )")))
        << name;
  }
  EXPECT_GE(options, 19U);
}

TEST(MountHelper, IsInstalledWithTheProgram) {
  const ScratchFolder folder;
  RunTool({"cmake", "--install",
           std::filesystem::path(PELLUCID_PROGRAM).parent_path().parent_path(),
           "--prefix", folder.path()});
  EXPECT_EQ(std::filesystem::canonical(folder / "sbin" / "mount.pellucid"),
            std::filesystem::canonical(folder / "bin" / "pellucid"));
  const std::string usage = RunProgram({folder / "sbin/mount.pellucid"}).err;
  EXPECT_THAT(usage, HasSubstr("mount.pellucid(8)"));
}

class MountHelperTest : public EncryptedImageTest {
 protected:
  MountHelperTest() {
    MakeImage("disk.qcow2");
    KeyFile();
    std::filesystem::create_directory(folder_ / "sbin");
    std::filesystem::create_directory(folder_ / "mnt");
    std::filesystem::create_symlink(PELLUCID_PROGRAM,
                                    folder_ / "sbin" / "mount.pellucid");
  }

  // Runs a shell script as root, with the helper installed and `fstab` in
  // place, where nobody else sees it.
  ProgramResult RunMounting(const std::string& fstab,
                            const std::string& script) {
    WriteHostFile(folder_ / "fstab", fstab);
    return RunProgram({"unshare", "--mount", "sh", "-ec",
                       // What other tests unmount must not live on in here.
                       "umount --all --lazy --types fuse.pellucid\n"
                       "mount --bind sbin /usr/sbin\n"
                       "mount --bind fstab /etc/fstab\n" +
                           script},
                      "", folder_.path());
  }

  std::string Path(const std::string& name) { return folder_ / name; }

  // Runs it as somebody who is not root, with a /dev/fuse that is everybody's.
  static std::string AsNobody(const std::string& script) {
    return fmt::format(
        "mknod --mode=666 fuse c 10 229\nmount --bind fuse /dev/fuse\n"
        "rm fuse\nchown nobody . mnt disk.qcow2\n"
        "setpriv --reuid=nobody --regid=nogroup --clear-groups sh -e <<'END'\n"
        "{}\nEND\n",
        script);
  }

  static constexpr const char* kLook =
      "grep ' '$PWD/mnt' ' /proc/mounts\n"
      "dd if=mnt/disk bs=1M skip=10 count=3 status=none | tr -d Z | wc -c\n";
  // The pattern of EncryptedImageTest is 0x5a.
  static constexpr const char* kSeen = "\n0\n";
};

TEST_F(MountHelperTest, MountDashTFindsIt) {
  const ProgramResult result = RunMounting(
      "", fmt::format("mount -t pellucid -o key-file={} {} {}\n{}umount mnt\n"
                      "test ! -e mnt/disk",
                      Path("key"), Path("disk.qcow2"), Path("mnt"), kLook));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr(" fuse.pellucid rw,"));
  EXPECT_THAT(result.out, testing::EndsWith(kSeen));
}

TEST_F(MountHelperTest, ALineOfFstabIsEnough) {
  const ProgramResult result = RunMounting(
      fmt::format("{} {} pellucid "
                  "ro,noauto,user,x-systemd.automount,_netdev,key-file={} 0 0",
                  Path("disk.qcow2"), Path("mnt"), Path("key")),
      fmt::format("mount {}\n{}{} umount mnt", Path("mnt"), kLook,
                  PELLUCID_PROGRAM));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  // `user` implies these.
  EXPECT_THAT(result.out, HasSubstr(" fuse.pellucid ro,nosuid,nodev,noexec"));
  EXPECT_THAT(result.out, testing::EndsWith(kSeen));
}

TEST_F(MountHelperTest, ADetachedHeaderAndTheCacheAreOptionsOfTheLine) {
  const ProgramResult created =
      RunPellucid({"create", "--quiet", "--format=raw", "--kdf=pbkdf2",
                   "--pbkdf2-iterations=1000", "--detached-header=a,header",
                   "--key-file=key", "payload", "1M"});
  ASSERT_EQ(created.exit_code, 0) << created.err;
  const ProgramResult result = RunMounting(
      fmt::format("{} {} pellucid "
                  "noauto,_netdev,header={},key-file={},cache=writethrough 0 0",
                  Path("payload"), Path("mnt"), Path("a\\134,header"),
                  Path("key")),
      fmt::format("mount {0}\necho written > mnt/disk\n{1} umount mnt\n"
                  "mount {0}\nhead -n 1 mnt/disk\n{1} umount mnt",
                  Path("mnt"), PELLUCID_PROGRAM));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "written\n");
}

TEST_F(MountHelperTest, AnIdleMountOfFstabGoesByItself) {
  const ProgramResult result = RunMounting(
      fmt::format("{} {} pellucid idle-timeout=1s,key-file={} 0 0",
                  Path("disk.qcow2"), Path("mnt"), Path("key")),
      fmt::format("mount {}\n{}for i in $(seq 100); do\n"
                  "mountpoint -q mnt || exit 0\nsleep 0.2\ndone\nexit 1",
                  Path("mnt"), kLook));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, testing::EndsWith(kSeen));
}

TEST_F(MountHelperTest, ALineForUsersLetsThemMountAndUnmount) {
  const std::string line =
      fmt::format("{} {} pellucid noauto,user,key-file={} 0 0",
                  Path("disk.qcow2"), Path("mnt"), Path("key"));
  const ProgramResult result =
      RunMounting(line, AsNobody(fmt::format("mount {0}\n{1}umount {0}\n"
                                             "! mountpoint -q mnt",
                                             Path("mnt"), kLook)));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr(" fuse.pellucid rw,nosuid,nodev,noexec"));
  EXPECT_THAT(result.out, testing::EndsWith(kSeen));
}

TEST_F(MountHelperTest, UsersMayLetOthersInIfFuseConfSaysSo) {
  const auto mount = [&](const std::string& configuration) {
    WriteHostFile(folder_ / "fuse.conf", configuration);
    return RunMounting(
        "", "mount --bind fuse.conf /etc/fuse.conf\n" +
                AsNobody(fmt::format(
                    "{0} mount -o allow_other --key-file key disk.qcow2 mnt\n"
                    "grep fuse.pellucid /proc/mounts\n{0} umount mnt",
                    PELLUCID_PROGRAM)));
  };
  const ProgramResult refused = mount("#user_allow_other\n");
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err,
              HasSubstr("for -o allow_other the line user_allow_other must "
                        "stand in /etc/fuse.conf"));
  EXPECT_EQ(refused.out, "");
  const ProgramResult allowed = mount("user_allow_other\n");
  EXPECT_EQ(allowed.exit_code, 0) << allowed.err;
  EXPECT_THAT(allowed.out, HasSubstr(",allow_other"));
}

TEST_F(MountHelperTest, FailuresReachMount) {
  WriteHostFile(folder_ / "wrong", "wrong");
  const ProgramResult result = RunMounting(
      "", fmt::format("mount -t pellucid -o key-file={} {} {}", Path("wrong"),
                      Path("disk.qcow2"), Path("mnt")));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("pellucid: "));
}

}  // namespace
}  // namespace pellucid
