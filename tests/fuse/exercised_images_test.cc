// Random operations on mounted images of several kinds, judged operation by
// operation and, afterwards, by QEMU.

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "tests/engine/opened_image_fixture.h"
#include "tests/fuse/exerciser.h"
#include "tests/fuse/program_fixture.h"
#include "tests/fuse/writable_stack_fixture.h"

namespace pellucid::fuse {
namespace {

class ExercisedImageTest : public ProgramTest,
                           public ::testing::WithParamInterface<std::string> {};

TEST_P(ExercisedImageTest, FileAndImageAreLikeTheModel) {
  constexpr uint64_t kSize = (1 << 20) + 4096;
  constexpr int kOperations = 12'500;
  WritableStack stack(FindStackKind(GetParam()), kSize);
  std::vector<std::string> mount = stack.MountArguments();
  mount.push_back(directory());
  ASSERT_NO_FATAL_FAILURE(MustRun(mount));
  Bytes model;
  {
    Exerciser exerciser(disk(), ReadHostFile(disk()), 3);
    for (int i = 0; i < kOperations; ++i) {
      if (!exerciser.Step()) {
        ADD_FAILURE() << "operation " << i << ", errno " << errno;
        break;
      }
    }
    model = exerciser.model();
  }
  MustRun({"umount", "directory"});
  EXPECT_EQ(stack.Damage(false), "");
  EXPECT_EQ(FirstDifference(stack.ContentByOthers(), model), "");
}

INSTANTIATE_TEST_SUITE_P(Kinds, ExercisedImageTest,
                         ::testing::Values("aes", "luks", "luks_512",
                                           "luks_uncached", "luks_snapshots",
                                           "luks_compressed",
                                           "extended_over_luks",
                                           "luks2_over_raw"),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

}  // namespace
}  // namespace pellucid::fuse
