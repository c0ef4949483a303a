// fio on a mounted image: what it wrote it verifies, and the server's memory
// keeps to its bound meanwhile.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

#include "engine/cluster_cache.h"
#include "tests/engine/programs_fixture.h"
#include "tests/fuse/foreground_fixture.h"
#include "tests/fuse/program_fixture.h"
#include "tests/fuse/writable_stack_fixture.h"

namespace pellucid::fuse {
namespace {

// Jobs that share the file but not the bytes: a header of each block tells
// where it belongs, and is verified when all is written and once more later.
// The mapped one must be the first in the file: fio maps from there whatever
// its offset.
constexpr char kVerifiedJobs[] = R"([global]
filename=${DISK}
verify=crc32c
verify_fatal=1
rw=randwrite
randseed=7
size=8m
[mapped]
bs=4k
ioengine=mmap
[direct-512]
bs=512
size=2m
offset=34m
direct=1
fsync=500
[direct-large]
bs=512k
size=6m
offset=36m
direct=1
ioengine=libaio
iodepth=8
[direct-4k]
bs=4k
offset=8m
direct=1
ioengine=libaio
iodepth=16
fdatasync=100
[buffered-4k]
bs=4k
offset=18m
fsync=200
[buffered-odd]
bs=7680
offset=26m
fdatasync=100
[sequential]
rw=write
bs=64k
offset=42m
)";

class WrittenLoadTest : public ProgramTest {
 protected:
  void Fio(const std::filesystem::path& disk,
           const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command = {"env", "DISK=" + disk.native(), "fio",
                                        "--minimal"};
    command.insert(command.end(), more.begin(), more.end());
    command.push_back("jobs");
    RunTool(command, "", folder());
  }
};

class VerifiedLoadTest : public WrittenLoadTest,
                         public ::testing::WithParamInterface<std::string> {};

TEST_P(VerifiedLoadTest, FioFindsWhatItWrote) {
  const StackKind kind = FindStackKind(GetParam());
  WritableStack stack(kind, 50 << 20);
  MakeFile("jobs", kVerifiedJobs);
  std::vector<std::string> mount = stack.MountArguments();
  mount.push_back(directory());
  ASSERT_NO_FATAL_FAILURE(MustRun(mount));
  Fio(disk());
  ASSERT_NO_FATAL_FAILURE(MustRun({"umount", "directory"}));
  EXPECT_EQ(stack.Damage(false), "");
  ASSERT_NO_FATAL_FAILURE(MustRun(mount));
  Fio(disk(), {"--verify_only"});
  ASSERT_NO_FATAL_FAILURE(MustRun({"umount", "directory"}));
  Fio(stack.PlaintextByOthers(), {"--verify_only"});
}

INSTANTIATE_TEST_SUITE_P(, VerifiedLoadTest,
                         ::testing::Values("luks", "extended_over_luks",
                                           "luks2_over_raw"),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

// Scattered small writes, which fill the cache, with what goes past it.
constexpr char kHeavyJobs[] = R"([global]
filename=${DISK}
rw=randwrite
size=512m
time_based
runtime=3
[scattered]
bs=4k
direct=1
ioengine=libaio
iodepth=32
[cut]
bsrange=512-20k
direct=1
[large]
bs=1m
direct=1
[buffered]
bs=4k
)";

TEST_F(WrittenLoadTest, MemoryStaysWithinTheCacheAndAConstant) {
  constexpr uint64_t kMiB = 1 << 20;
  MakeFile("jobs", kHeavyJobs);
  for (const uint64_t capacity :
       {8 * kMiB, uint64_t{ClusterCache::kDefaultCapacityBytes}}) {
    SCOPED_TRACE(fmt::format("{} MiB", capacity / kMiB));
    WritableStack stack(FindStackKind("luks"), 512 * kMiB);
    std::vector<std::string> arguments = stack.MountArguments();
    if (capacity != ClusterCache::kDefaultCapacityBytes) {
      arguments.push_back(fmt::format("--cache-size={}", capacity));
    }
    ForegroundMount mount(arguments, directory(), folder() / "log");
    Fio(disk());
    // What engine/cluster_cache.h says that it takes, and the constant for all
    // else: buffers of requests, metadata of the image, the program itself.
    const uint64_t cache = capacity + capacity * 3 / 100 + kMiB;
    EXPECT_LE(mount.peak_bytes(), cache + 64 * kMiB);
    EXPECT_EQ(mount.End(SIGTERM), 0);
    EXPECT_EQ(stack.Damage(false), "");
  }
}

}  // namespace
}  // namespace pellucid::fuse
