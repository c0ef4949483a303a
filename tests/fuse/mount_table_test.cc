#include "fuse/mount_table.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/fuse/mount_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;

TEST(MountTableTest, FieldsAreFoundBehindAnyNumberOfTags) {
  const std::vector<MountTableEntry> entries = ParseMountTable(
      "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n"
      "42 27 0:39 / /a ro - fuse.pellucid disk.qcow2 "
      "ro,user_id=1000,group_id=100,default_permissions\n"
      "43 27 0:40 / /b rw shared:1 propagate_from:2 unbindable - tmpfs none "
      "rw\n");
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[0].mountpoint, "/mnt2");
  EXPECT_EQ(entries[0].type, "ext3");
  EXPECT_EQ(entries[0].source, "/dev/root");
  EXPECT_FALSE(entries[0].owner.has_value());
  EXPECT_EQ(entries[1].device, "0:39");
  EXPECT_EQ(entries[1].mountpoint, "/a");
  EXPECT_EQ(entries[1].type, kFilesystemType);
  EXPECT_EQ(entries[1].owner, 1000U);
  EXPECT_EQ(entries[1].owner_group, 100U);
  EXPECT_EQ(entries[2].mountpoint, "/b");
  EXPECT_EQ(entries[2].type, "tmpfs");
}

TEST(MountTableTest, OctalEscapesAreUndone) {
  const std::vector<MountTableEntry> entries = ParseMountTable(
      R"(42 27 0:39 / /a\040b\011c\012d\134e\9 ro - fuse.pellucid x\040y ro)");
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].mountpoint, "/a b\tc\nd\\e\\9");
  EXPECT_EQ(entries[0].source, "x y");
}

TEST(MountTableTest, LinesCutOffAreLeftOut) {
  const std::string line = "42 27 0:39 / /a ro - fuse.pellucid disk ro";
  for (size_t length = 0; length < line.rfind(' '); ++length) {
    EXPECT_TRUE(ParseMountTable(line.substr(0, length)).empty()) << length;
  }
  EXPECT_EQ(ParseMountTable(line).size(), 1U);
}

TEST(MountTableTest, RootIsMountedAndATemporaryFolderIsNot) {
  const TemporaryFolder folder;
  EXPECT_TRUE(FindMount("/").has_value());
  EXPECT_FALSE(FindMount(folder.path()).has_value());
}

TEST(ResolveMountpointTest, LinksSlashesAndDotsAreResolved) {
  const TemporaryFolder folder;
  fs::create_directories(folder.path() / "a" / "b");
  fs::create_directory_symlink(folder.path() / "a", folder.path() / "link");
  const fs::path expected = folder.path() / "a" / "b";
  EXPECT_EQ(ResolveMountpoint(folder.path() / "link" / "b"), expected);
  EXPECT_EQ(ResolveMountpoint(folder.path() / "link" / "b" / ""), expected);
  EXPECT_EQ(ResolveMountpoint(folder.path() / "link" / "b" / "."), expected);
  EXPECT_EQ(ResolveMountpoint(expected / ".." / "b"), expected);
  EXPECT_THROW(ResolveMountpoint(folder.path() / "none"), fs::filesystem_error);
}

}  // namespace
}  // namespace pellucid::fuse
