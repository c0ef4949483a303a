// Images that the machine's QEMU makes here, judged by what its qemu-img reads.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"

namespace pellucid {
namespace {

class GeneratedImageTest : public ::testing::TestWithParam<ImageVariant> {
 protected:
  void SetUp() override { MakeVariant(GetParam(), images_); }

  // Holes must be where QEMU knows of zeros that nobody stores, and nowhere
  // where it knows of data.
  void CheckHolesAgainstMap(BlockDevice& device) {
    std::vector<std::string> command = {"qemu-img", "map", "--output=json"};
    const std::vector<std::string> open = images_.OpenArguments("top.qcow2");
    command.insert(command.end(), open.begin(), open.end());
    for (const nlohmann::json& run : nlohmann::json::parse(RunTool(command))) {
      const bool data = run.at("data");
      const bool zero = run.at("zero");
      // A zero cluster may keep its place in the file.
      if (data == zero || run.contains("offset")) continue;
      const uint64_t begin = run.at("start");
      const uint64_t end = begin + run.at("length").get<uint64_t>();
      for (uint64_t at = begin; at < end && at < device.size();) {
        const Extent extent =
            device.ExtentAt(at, std::min(end, device.size()) - at);
        EXPECT_EQ(extent.is_hole, zero)
            << at << ", in QEMU's run at " << begin << " of " << end - begin;
        at += extent.length;
      }
    }
  }

  QemuImages images_;
};

TEST_P(GeneratedImageTest, ReadsAsQemuReadsIt) {
  const Bytes expected = images_.Content("top.qcow2");
  const auto device = images_.Open("top.qcow2");
  const Bytes content = ReadAll(*device, 100003);
  ASSERT_EQ(FirstDifference(content, expected), "");
  CheckExtents(*device, content);
  CheckHolesAgainstMap(*device);
  CheckRandomReads(*device, expected, 400, expected.size());
}

INSTANTIATE_TEST_SUITE_P(
    Product, GeneratedImageTest, ::testing::ValuesIn(AllVariants()),
    [](const ::testing::TestParamInfo<ImageVariant>& info) {
      return TestName(info.param);
    });

}  // namespace
}  // namespace pellucid
