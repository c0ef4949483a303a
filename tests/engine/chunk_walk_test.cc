#include "engine/chunk_walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <latch>
#include <random>
#include <thread>
#include <vector>

namespace pellucid {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr uint64_t kChunk = ChunkWalk::kChunkBytes;
constexpr uint64_t kRequest = 1 << 20;

class ChunkWalkTest : public testing::Test {
 protected:
  void Note(uint64_t offset, uint64_t length = kRequest) {
    walk_.Note(
        offset, length, [this](uint64_t chunk) { passed_.push_back(chunk); },
        [this] { ++times_lost_; });
  }
  void Go(uint64_t begin, uint64_t end, uint64_t request = kRequest) {
    for (uint64_t at = begin; at < end; at += request) Note(at, request);
  }

  ChunkWalk walk_;
  std::vector<uint64_t> passed_;
  int times_lost_ = 0;
};

TEST_F(ChunkWalkTest, ChunksArePassedWhenTheNextOneIsEntered) {
  for (const uint64_t request : {uint64_t{64} << 10, kRequest, kChunk}) {
    SCOPED_TRACE(request);
    passed_.clear();
    Go(0, 4 * kChunk, request);
    EXPECT_THAT(passed_, ElementsAre(0, 1, 2));
    Note(1000 * kChunk);
    Note(0);
  }
}

TEST_F(ChunkWalkTest, LateAndEarlyRequestsAreInOrder) {
  Go(0, kChunk - kRequest);
  Note(kChunk);
  Note(kChunk - kRequest);
  Go(kChunk + kRequest, 2 * kChunk - kRequest);
  Note(2 * kChunk);
  Note(2 * kChunk - kRequest);
  Go(2 * kChunk + kRequest, 3 * kChunk + kRequest);
  EXPECT_THAT(passed_, ElementsAre(0, 1, 2));
  EXPECT_EQ(times_lost_, 0);
}

TEST_F(ChunkWalkTest, AWalkBeginsAnewElsewhere) {
  Go(0, 2 * kChunk);
  Go(100 * kChunk, 102 * kChunk);
  EXPECT_THAT(passed_, ElementsAre(0, 100));
  EXPECT_EQ(times_lost_, 1);
}

TEST_F(ChunkWalkTest, ShortRequestsAndThoseHereAndTherePassNothing) {
  Go(0, 4 * kChunk, 4096);
  std::vector<uint64_t> offsets;
  for (uint64_t at = 0; at < 2000 * kChunk; at += kChunk / 2) {
    offsets.push_back(at);
  }
  std::ranges::shuffle(offsets, std::mt19937_64(1));
  for (const uint64_t at : offsets) Note(at);
  EXPECT_THAT(passed_, IsEmpty());
}

TEST(ChunkWalkThreadsTest, NobodyWaitsForAnotherThread) {
  ChunkWalk walk;
  std::latch is_inside(1);
  std::latch may_leave(1);
  const auto nothing = [](auto...) {};
  walk.Note(0, kChunk, nothing, nothing);
  std::jthread other([&] {
    walk.Note(
        kChunk, kRequest,
        [&](uint64_t) {
          is_inside.count_down();
          may_leave.wait();
        },
        nothing);
  });
  is_inside.wait();
  std::vector<uint64_t> passed;
  const auto pass = [&](uint64_t chunk) { passed.push_back(chunk); };
  for (uint64_t at = kChunk + kRequest; at < 3 * kChunk; at += kRequest) {
    walk.Note(at, kRequest, pass, nothing);
  }
  EXPECT_THAT(passed, IsEmpty());
  may_leave.count_down();
  other.join();
  walk.Note(3 * kChunk, kRequest, pass, nothing);
  EXPECT_THAT(passed, SizeIs(2));
}

}  // namespace
}  // namespace pellucid
