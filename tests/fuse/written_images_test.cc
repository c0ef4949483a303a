// Every kind of image that can be written, written through the mount by the
// tools that people use, and judged by other readers of the same format.

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/program_fixture.h"
#include "tests/fuse/writable_stack_fixture.h"

namespace pellucid::fuse {
namespace {

namespace fs = std::filesystem;

// Writes to the file $1, the mount or the ordinary file "model", which then
// must be equal. $2 is its size. Direct writes are not for the model: its file
// system may want them aligned.
constexpr char kScribble[] = R"(
disk=$1 size=$2
put() {  # OFFSET LENGTH BLOCK [OFLAG]: from the same offset of the noise.
  local flags=seek_bytes
  if [[ ${4:-} != '' && $disk != model ]]; then flags+=,$4; fi
  dd if=noise of="$disk" skip="$1" seek="$1" count="$2" bs="$3" conv=notrunc \
    iflag=skip_bytes,count_bytes,fullblock oflag="$flags" status=none
}
zero() {  # OFFSET LENGTH MODE
  if [[ $disk == model ]]; then
    dd if=/dev/zero of=model seek="$1" count="$2" bs=64K conv=notrunc \
      iflag=count_bytes oflag=seek_bytes status=none
  else
    fallocate "$3" --keep-size --offset "$1" --length "$2" "$disk"
  fi
}
put 0 700 512
put 4096 400000 4K
put 65536 1048576 256K direct
put 1200000 300001 64K
put 1500003 77777 7777 direct
put 1700000 13 13
put 1048000 5 1 direct
zero 100000 150000 --punch-hole
zero 655360 131072 --punch-hole
zero 900001 99 --zero-range
zero 1179648 262145 --zero-range
put 140000 3000 1000
put 700000 40000 40000 direct
put 2000000 600000 1M dsync
zero 2031616 65536 --punch-hole
put 2040000 512 512 sync
zero $((size - 70000)) 70000 --punch-hole
put $((size - 5000)) 5000 4K
put $((size - 777)) 777 777 direct
truncate --no-create --size "$size" "$disk"
)";

class WrittenImageTest : public ProgramTest,
                         public ::testing::WithParamInterface<StackKind> {
 protected:
  // For `disk` an expression that names the mounted file.
  void Shell(const std::string& script,
             const std::vector<std::string>& arguments) const {
    std::vector<std::string> command = {"bash", "-euc", script, "test"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    RunTool(command, "", folder());
  }

  void Mount() const {
    std::vector<std::string> arguments = stack_.MountArguments();
    arguments.push_back(directory());
    MustRun(arguments);
  }

  Bytes Model() const { return ReadHostFile(folder() / "model"); }

  const uint64_t size_ = WritableStack::DefaultSize(GetParam());
  WritableStack stack_{GetParam(), size_};
};

TEST_P(WrittenImageTest, ToolsWriteAndOthersRead) {
  const Bytes before = stack_.ContentByOthers();
  ASSERT_EQ(before.size(), size_);
  Bytes snapshot;
  if (GetParam().snapshots) snapshot = stack_.SnapshotByOthers();
  WriteHostFile(folder() / "noise", Noise(size_, 2));
  WriteHostFile(folder() / "model", before);
  const std::string size = std::to_string(size_);

  ASSERT_NO_FATAL_FAILURE(Mount());
  EXPECT_EQ(FirstDifference(ReadHostFile(disk()), before), "");
  Shell(kScribble, {"directory/disk", size});
  EXPECT_EQ(fs::file_size(disk()), size_);
  Shell(kScribble, {"model", size});
  Shell("cp model old; cp --sparse=always directory/disk copy; cmp copy model",
        {});
  ASSERT_NO_FATAL_FAILURE(MustRun({"umount", "directory"}));
  EXPECT_EQ(stack_.Damage(false), "");
  EXPECT_EQ(FirstDifference(stack_.ContentByOthers(), Model()), "");

  // There and back by rsync, which seeks and rewrites what differs. The times
  // of the two files may well be the same: it is told to look inside.
  ASSERT_NO_FATAL_FAILURE(Mount());
  Shell(R"(
dd if=noise of=model bs=10001 count=9 skip=3 seek=20 conv=notrunc status=none
dd if=/dev/zero of=model bs=50003 count=3 seek=40 conv=notrunc status=none
rsync --ignore-times --inplace --no-whole-file model directory/disk
cmp model directory/disk
rsync --ignore-times --inplace --no-whole-file directory/disk old
cmp model old)",
        {});
  ASSERT_NO_FATAL_FAILURE(MustRun({"umount", "directory"}));
  EXPECT_EQ(stack_.Damage(false), "");
  EXPECT_EQ(FirstDifference(stack_.ContentByOthers(), Model()), "");
  if (GetParam().snapshots) {
    EXPECT_EQ(FirstDifference(stack_.SnapshotByOthers(), snapshot), "");
  }
}

TEST_P(WrittenImageTest, WhatQemuWritesBetweenOurWritesIsRead) {
  if (!stack_.QemuWrites()) return;  // Nothing to be said of such kinds.
  Bytes model = stack_.ContentByOthers();
  const auto write = [&](uint64_t offset, size_t length, uint64_t seed) {
    const Bytes bytes = Noise(length, seed);
    const OpenFile file(disk(), O_RDWR);
    ASSERT_EQ(
        pwrite(file.fd(), bytes.data(), length, static_cast<off_t>(offset)),
        static_cast<ssize_t>(length));
    std::ranges::copy(bytes, model.begin() + static_cast<ptrdiff_t>(offset));
  };
  ASSERT_NO_FATAL_FAILURE(Mount());
  write(300'000, 500'001, 1);
  ASSERT_NO_FATAL_FAILURE(MustRun({"umount", "directory"}));
  stack_.WriteByQemu("write -P 42 500k 300k");
  std::fill_n(model.begin() + (500 << 10), 300 << 10, std::byte{42});
  stack_.WriteByQemu("write -z 600k 100k");
  std::fill_n(model.begin() + (600 << 10), 100 << 10, std::byte{0});
  ASSERT_NO_FATAL_FAILURE(Mount());
  EXPECT_EQ(FirstDifference(ReadHostFile(disk()), model), "");
  write(650'001, 30'000, 2);
  ASSERT_NO_FATAL_FAILURE(MustRun({"umount", "directory"}));
  EXPECT_EQ(stack_.Damage(false), "");
  EXPECT_EQ(FirstDifference(stack_.ContentByOthers(), model), "");
}

TEST_P(WrittenImageTest, MountWithoutAWriteChangesNothing) {
  std::vector<struct stat> old_status;
  std::vector<Bytes> old_content;
  for (const fs::path& file : stack_.files()) {
    old_content.push_back(ReadHostFile(file));
    // An access time that any read would move, even with relatime.
    RunTool({"touch", "-a", "-d", "2001-02-03", file});
    ASSERT_EQ(stat(file.c_str(), &old_status.emplace_back()), 0);
  }
  ASSERT_NO_FATAL_FAILURE(Mount());
  EXPECT_EQ(ReadHostFile(disk()).size(), size_);
  {
    const OpenFile file(disk(), O_RDWR);
    ASSERT_GE(file.fd(), 0);
    EXPECT_EQ(fsync(file.fd()), 0);
  }
  ASSERT_NO_FATAL_FAILURE(MustRun({"umount", "directory"}));
  for (size_t i = 0; i < old_status.size(); ++i) {
    const fs::path file = stack_.files()[i];
    struct stat status = {};
    ASSERT_EQ(stat(file.c_str(), &status), 0);
    const auto same = [](const timespec& a, const timespec& b) {
      return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
    };
    EXPECT_TRUE(same(status.st_mtim, old_status[i].st_mtim)) << file;
    EXPECT_TRUE(same(status.st_ctim, old_status[i].st_ctim)) << file;
    EXPECT_TRUE(same(status.st_atim, old_status[i].st_atim)) << file;
    EXPECT_EQ(status.st_blocks, old_status[i].st_blocks) << file;
    EXPECT_TRUE(ReadHostFile(file) == old_content[i]) << file;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, WrittenImageTest,
                         ::testing::ValuesIn(AllStackKinds()),
                         [](const ::testing::TestParamInfo<StackKind>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace pellucid::fuse
