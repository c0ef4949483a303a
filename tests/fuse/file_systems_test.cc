// File systems that are made, mounted and filled in a mounted image, as people
// do; the checker of each is the judge, through the mount and by way of QEMU.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "tests/engine/programs_fixture.h"
#include "tests/fuse/program_fixture.h"
#include "tests/fuse/writable_stack_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;

struct FileSystemCase {
  std::string name;
  std::string kind;  // Of the image.
  uint64_t size;
  std::string make;   // Shell commands, $1 being the disk.
  std::string check;  // That find nothing or fail.
};

void PrintTo(const FileSystemCase& test, std::ostream* out) {
  *out << test.name;
}

const FileSystemCase kCases[] = {
    {"ext4", "luks_snapshots", 64 << 20, "mkfs.ext4 -q -F \"$1\"",
     "e2fsck -fn \"$1\""},
    {"ext4_small_blocks", "luks_512", 24 << 20,
     "mkfs.ext4 -q -F -b 1024 \"$1\"", "e2fsck -fn \"$1\""},
    {"xfs", "luks_extended", 320 << 20, "mkfs.xfs -q -f \"$1\"",
     "xfs_repair -n \"$1\""},
    {"btrfs", "luks_over_aes", 128 << 20, "mkfs.btrfs -q -f \"$1\"",
     "btrfs check --readonly --check-data-csum \"$1\""},
    {"btrfs_over_luks", "luks1_over_qcow2", 112 << 20,
     "mkfs.btrfs -q -f --mixed \"$1\"",
     "btrfs check --readonly --check-data-csum \"$1\""},
};

class FileSystemTest : public ProgramTest,
                       public ::testing::WithParamInterface<FileSystemCase> {
 protected:
  void SetUp() override {
    if (geteuid() != 0) {
      ASSERT_EQ(getenv("CI"), nullptr) << "loop devices need root";
      GTEST_SKIP() << "loop devices need root";
    }
    ASSERT_NO_FATAL_FAILURE(ProgramTest::SetUp());
    fs::create_directory(mnt());
  }

  void TearDown() override {
    umount2(mnt().c_str(), MNT_DETACH);  // After a failure.
    ProgramTest::TearDown();
  }

  fs::path mnt() const { return folder() / "mnt"; }

  void Shell(const std::string& script, const fs::path& disk) const {
    RunTool({"bash", "-euc", script, "test", disk}, "", folder());
  }

  // Some hundred files of up to 60 KB, some with holes, and links.
  void MakeTree() const {
    std::mt19937_64 random(1);
    for (unsigned i = 0; i < 300; ++i) {
      const fs::path where = folder() / "tree" / std::to_string(i % 17) /
                             std::string(1 + i % 5, 'd');
      fs::create_directories(where);
      const fs::path file = where / fmt::format("file {}", i);
      WriteHostFile(file, Noise(random() % (i % 10 == 0 ? 60'000 : 9'000), i));
      if (i % 20 == 0) fs::resize_file(file, fs::file_size(file) + 100'000);
      if (i % 30 == 0) fs::create_hard_link(file, where / "hard");
      if (i % 25 == 0) fs::create_symlink("nowhere", where / "soft");
    }
  }

  bool KernelHasIt() const {
    const std::string type =
        GetParam().name.substr(0, GetParam().name.find('_'));
    std::ifstream known("/proc/filesystems");
    for (std::string line; std::getline(known, line);) {
      if (line.ends_with("\t" + type)) return true;
    }
    // It may be a module.
    return RunProgram({"modprobe", "-q", type}).exit_code == 0;
  }
};

TEST_P(FileSystemTest, HoldsASourceTreeAndStaysSound) {
  const StackKind kind = FindStackKind(GetParam().kind);
  WritableStack stack(kind, GetParam().size);
  std::vector<std::string> mount = stack.MountArguments();
  mount.push_back(directory());
  ASSERT_NO_FATAL_FAILURE(MustRun(mount));
  Shell(GetParam().make, disk());
  if (KernelHasIt()) {
    MakeTree();
    Shell(R"(
mount -o loop "$1" mnt
cp -a tree mnt/tree
cp -a tree mnt/second
umount mnt
mount -o loop "$1" mnt
diff -r --no-dereference tree mnt/tree
rm -r mnt/second
fstrim mnt
cp -a tree mnt/third
umount mnt)",
          disk());
  } else {
    std::cout << "This kernel has no " << GetParam().name
              << ": only what mkfs made is checked.\n";
  }
  Shell(GetParam().check, disk());
  ASSERT_NO_FATAL_FAILURE(MustRun({"umount", "directory"}));
  EXPECT_EQ(stack.Damage(false), "");
  const fs::path plaintext = stack.PlaintextByOthers();
  Shell(GetParam().check, plaintext);
  if (!KernelHasIt()) return;
  Shell(R"(
mount -o loop,ro "$1" mnt
diff -r --no-dereference tree mnt/tree
diff -r --no-dereference tree mnt/third
umount mnt)",
        plaintext);
}

INSTANTIATE_TEST_SUITE_P(
    , FileSystemTest, ::testing::ValuesIn(kCases),
    [](const ::testing::TestParamInfo<FileSystemCase>& info) {
      return info.param.name;
    });

}  // namespace
}  // namespace pellucid::fuse
