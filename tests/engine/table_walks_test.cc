// What `pellucid info` and the progress of `pellucid check` know of the tables
// of an image, against the check itself, which is compared with qemu-img's.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/check_image.h"
#include "engine/open_image.h"
#include "tests/engine/image_states_fixture.h"

namespace pellucid {
namespace {

constexpr const char* kName = "disk.qcow2";

class TableWalksTest : public ::testing::TestWithParam<ChangedImage> {
 protected:
  TableWalksTest() { Make(GetParam(), images_); }

  QemuImages images_;
};

INSTANTIATE_TEST_SUITE_P(All, TableWalksTest,
                         ::testing::ValuesIn(ChangedImages()),
                         [](const auto& test) { return test.param.name; });

TEST_P(TableWalksTest, InfoCountsTheClustersThatTheCheckCounts) {
  const OpenOptions options = images_.options(kName);
  const ClusterStatistics counted =
      CheckImage(options, Repair::kNone).clusters.value();
  const Qcow2Info info = DescribeImage(options).qcow2.value();
  EXPECT_EQ(info.total_clusters, counted.total_clusters);
  EXPECT_EQ(info.allocated_clusters, counted.allocated_clusters);
  EXPECT_EQ(info.compressed_clusters, counted.compressed_clusters);
  EXPECT_GT(info.allocated_clusters, 0U);
}

TEST_P(TableWalksTest, TheWatchSeesTheCheckGoOnToNearItsEnd) {
  std::vector<std::pair<uint64_t, uint64_t>> told;
  CheckImage(
      images_.options(kName), Repair::kNone,
      [&](uint64_t done, uint64_t total) { told.emplace_back(done, total); });
  ASSERT_GE(told.size(), 3U);
  uint64_t last = 0;
  for (const auto& [done, total] : told) {
    EXPECT_EQ(total, told.front().second);
    EXPECT_GE(done, last);
    EXPECT_LE(done, total);
    last = done;
  }
  // Tables of snapshots are not read a second time.
  EXPECT_GE(last * 2, told.front().second);
}

TEST_P(TableWalksTest, WhatTheWatchThrowsEndsTheCheck) {
  int calls = 0;
  EXPECT_THROW(CheckImage(images_.options(kName), Repair::kNone,
                          [&](uint64_t, uint64_t) {
                            if (++calls == 2) throw std::runtime_error("stop");
                          }),
               std::runtime_error);
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace pellucid
