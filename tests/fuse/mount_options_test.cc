#include "fuse/mount_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/errors.h"

namespace pellucid::fuse {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

TEST(MountOptionsTest, WithoutOptionsTheOwnerReadsAndNobodyElse) {
  const MountOptions options = ParseMountOptions({});
  EXPECT_FALSE(options.allow_other);
  EXPECT_FALSE(options.allow_root);
  EXPECT_FALSE(options.auto_unmount);
  EXPECT_FALSE(options.uid.has_value());
  EXPECT_FALSE(options.gid.has_value());
  EXPECT_FALSE(options.umask.has_value());
  EXPECT_EQ(options.fsname, "");
  EXPECT_EQ(options.max_read, kDefaultMaxRead);
  EXPECT_EQ(options.max_write, kDefaultMaxWrite);
  EXPECT_TRUE(options.kernel_writeback);
  EXPECT_TRUE(options.kernel_flags.empty());
}

TEST(MountOptionsTest, EveryOptionIsUnderstood) {
  const MountOptions options = ParseMountOptions(
      {"ro,allow_other,uid=1000,gid=100", "umask=0227,fsname=disk.qcow2",
       "max_read=1048576,max_write=8192,nonempty,defaults,auto_unmount,nodev,"
       "nosuid,noexec,"
       "noatime,dev,suid,exec,async,dirsync"});
  EXPECT_TRUE(options.allow_other);
  EXPECT_TRUE(options.auto_unmount);
  EXPECT_EQ(options.uid, 1000U);
  EXPECT_EQ(options.gid, 100U);
  EXPECT_EQ(options.umask, 0227U);
  EXPECT_EQ(options.fsname, "disk.qcow2");
  EXPECT_EQ(options.max_read, 1048576U);
  EXPECT_EQ(options.max_write, 8192U);
  EXPECT_THAT(options.kernel_flags,
              ElementsAre("nodev", "nosuid", "noexec", "noatime", "dev", "suid",
                          "exec", "async", "dirsync"));
}

TEST(MountOptionsTest, FlagsThatMeanNothingAreNotPassedOn) {
  const MountOptions options = ParseMountOptions(
      {"atime,diratime,nodiratime,relatime,norelatime,strictatime",
       "nostrictatime,lazytime,nolazytime"});
  EXPECT_TRUE(options.kernel_flags.empty());
}

TEST(MountOptionsTest, EmptyPartsAreSkipped) {
  EXPECT_TRUE(ParseMountOptions({"", ",", ",,allow_root,"}).allow_root);
}

TEST(MountOptionsTest, TheLastValueWins) {
  EXPECT_EQ(ParseMountOptions({"uid=1,uid=2", "uid=3"}).uid, 3U);
}

TEST(MountOptionsTest, EscapedCommaAndEqualSignBelongToAValue) {
  EXPECT_EQ(ParseMountOptions({R"(fsname=a\,b=c\\d,ro)"}).fsname, R"(a,b=c\d)");
}

TEST(MountOptionsTest, NumbersAreTakenUpToTheirLimits) {
  EXPECT_EQ(ParseMountOptions({"uid=4294967294"}).uid, 4294967294U);
  EXPECT_EQ(ParseMountOptions({"umask=777"}).umask, 0777U);
  EXPECT_EQ(ParseMountOptions({"umask=0"}).umask, 0U);
  EXPECT_EQ(ParseMountOptions({"max_read=4096"}).max_read, 4096U);
  EXPECT_EQ(ParseMountOptions({"max_read=128K"}).max_read, 131072U);
  EXPECT_EQ(ParseMountOptions({"max_write=1MiB"}).max_write, 1048576U);
}

struct BadOption {
  const char* text;
  const char* named;  // Stands in the message.
};

class BadMountOptionTest : public ::testing::TestWithParam<BadOption> {};

TEST_P(BadMountOptionTest, IsNamedInTheError) {
  try {
    ParseMountOptions({GetParam().text});
    FAIL() << GetParam().text << " was taken";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr(GetParam().named));
  }
}

INSTANTIATE_TEST_SUITE_P(
    , BadMountOptionTest,
    ::testing::Values(
        BadOption{"frobnicate", "-o frobnicate"},
        BadOption{"ro,frobnicate=7", "-o frobnicate"},
        BadOption{"uid", "-o uid"}, BadOption{"uid=", "-o uid="},
        BadOption{"uid=alice", "-o uid=alice"},
        BadOption{"uid=-1", "-o uid=-1"},
        BadOption{"uid=4294967295", "-o uid=4294967295"},
        BadOption{"gid=1x", "-o gid=1x"}, BadOption{"umask=8", "-o umask=8"},
        BadOption{"umask=1000", "-o umask=1000"},
        BadOption{"max_read=4095", "-o max_read=4095"},
        BadOption{"max_read=1048577", "-o max_read=1048577"},
        BadOption{"max_read=2M", "-o max_read=2097152"},
        BadOption{"max_read=4294967295M", "-o max_read=45035996"},
        BadOption{"max_read=8KB", "-o max_read=8KB"},
        BadOption{"max_read=M", "-o max_read=M"},
        BadOption{"max_write=4095", "-o max_write=4095"},
        BadOption{"fsname=", "-o fsname"}, BadOption{"ro=1", "-o ro"},
        BadOption{"allow_other=1", "-o allow_other"}, BadOption{"=1", "-o "},
        BadOption{"subtype=x", "-o subtype"}, BadOption{"blkdev", "-o blkdev"},
        BadOption{"noauto", "-o noauto"},
        BadOption{"relatime=1", "-o relatime"},
        BadOption{"allow_other,allow_root", "allow_root"}));

TEST(MountAccessTest, DeviceDecidesUnlessAnOptionDoes) {
  EXPECT_TRUE(IsWritableMount(ParseMountOptions({""}), true));
  EXPECT_FALSE(IsWritableMount(ParseMountOptions({""}), false));
  EXPECT_TRUE(IsWritableMount(ParseMountOptions({"ro,rw"}), true));
  EXPECT_FALSE(IsWritableMount(ParseMountOptions({"rw,ro"}), true));
  EXPECT_FALSE(IsWritableMount(ParseMountOptions({"ro"}), false));
}

TEST(MountAccessTest, WritingToADeviceThatIsOnlyReadIsUnsupported) {
  EXPECT_THROW(IsWritableMount(ParseMountOptions({"ro,rw"}), false),
               Unsupported);
}

TEST(LibfuseArgumentsTest, PermissionsAreCheckedByTheKernel) {
  EXPECT_THAT(
      LibfuseArguments(MountOptions(), /*is_writable=*/false),
      IsSupersetOf({"-oro", "-odefault_permissions", "-osubtype=pellucid",
                    "-ofsname=pellucid", "-omax_read=262144"}));
  EXPECT_THAT(LibfuseArguments(MountOptions(), /*is_writable=*/true),
              AllOf(IsSupersetOf({"-orw", "-odefault_permissions"}),
                    Not(Contains("-oro"))));
}

TEST(LibfuseArgumentsTest, NameIsEscaped) {
  MountOptions options;
  options.fsname = R"(a,allow_other\b)";
  const std::vector<std::string> arguments = LibfuseArguments(options, false);
  EXPECT_THAT(arguments, Contains(R"(-ofsname=a\,allow_other\\b)"));
  EXPECT_THAT(arguments, Not(Contains("-oallow_other")));
}

TEST(LibfuseArgumentsTest, FlagsArePassedOn) {
  MountOptions options;
  options.allow_root = true;
  options.auto_unmount = true;
  options.kernel_flags = {"noexec"};
  EXPECT_THAT(LibfuseArguments(options, false),
              IsSupersetOf({"-oallow_root", "-oauto_unmount", "-onoexec"}));
}

}  // namespace
}  // namespace pellucid::fuse
