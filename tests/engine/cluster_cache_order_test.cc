// Who wins when writes, reads and the write-back of one range meet.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <random>
#include <thread>
#include <vector>

#include "engine/cluster_cache.h"
#include "tests/engine/cached_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/writable_memory_device.h"

namespace pellucid {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Long enough for what must not happen to happen.
constexpr auto kAWhile = 30ms;

template <typename Call>
std::future<void> InBackground(Call call) {
  return std::async(std::launch::async, call);
}

bool IsDone(const std::future<void>& future) {
  return future.wait_for(kAWhile) == std::future_status::ready;
}

TEST(ClusterCacheConcurrentTest, LargeWriteWaitsForAWriteBackOfOlderBytes) {
  for (const bool zeroes : {false, true}) {
    CachedDevice d(Bytes(1 << 20));
    d.cache->Write(kLine + kPage, Filled(kPage, 1));
    d.below->StopWrites(kLine, 2 * kLine);
    auto flush = InBackground([&] { d.cache->Flush(); });
    d.below->AwaitStopped();
    auto large = InBackground([&] {
      if (zeroes) {
        d.cache->WriteZeroes(kLine, kLine, ZeroMode::kFreeSpace);
      } else {
        d.cache->Write(kLine, Filled(kLine, 2));
      }
    });
    EXPECT_FALSE(IsDone(large));
    EXPECT_EQ(d.Read(kLine + kPage, kPage), Filled(kPage, 1));
    EXPECT_EQ(d.below->writes(), 1U) << "the large one has not gone down";
    d.below->Resume();
    large.get();
    flush.get();
    EXPECT_EQ(d.Read(kLine, kLine), Filled(kLine, zeroes ? 0 : 2));
    EXPECT_EQ(d.below->events().front(), Written(kLine + kPage, kPage));
  }
}

TEST(ClusterCacheConcurrentTest, WriteBackWaitsForALargeWriteOfNewerBytes) {
  CachedDevice d(Bytes(1 << 20));
  d.cache->Write(kLine + kPage, Filled(kPage, 1));
  d.cache->Write(0, Filled(kPage, 1));
  d.below->StopWrites(kLine, 2 * kLine);
  auto large = InBackground([&] { d.cache->Write(kLine, Filled(kLine, 2)); });
  d.below->AwaitStopped();
  // A reader sees the newest bytes whose write is complete.
  EXPECT_EQ(d.Read(kLine + kPage, kPage), Filled(kPage, 1));
  auto flush = InBackground([&] { d.cache->Flush(); });
  EXPECT_FALSE(IsDone(flush));
  EXPECT_THAT(d.below->events(), ElementsAre(Written(0, kPage)));
  d.below->Resume();
  large.get();
  flush.get();
  EXPECT_THAT(d.below->events(),
              ElementsAre(Written(0, kPage), Written(kLine, kLine), kFlushed));
  EXPECT_EQ(d.Read(kLine, kLine), Filled(kLine, 2));
}

TEST(ClusterCacheConcurrentTest, FlushWritesWhatAFailedLargeWriteLeftDirty) {
  CachedDevice d(Bytes(1 << 20));
  d.cache->Write(kLine + kPage, Filled(kPage, 1));
  d.below->FailNthWrite(1, EIO);
  d.below->StopWrites(kLine, 2 * kLine);
  auto large = InBackground([&] { d.cache->Write(kLine, Filled(kLine, 2)); });
  d.below->AwaitStopped();
  auto flush = InBackground([&] { d.cache->Flush(); });
  EXPECT_FALSE(IsDone(flush));
  d.below->Resume();
  EXPECT_EQ(ErrnoOf([&] { large.get(); }), EIO);
  EXPECT_EQ(ErrnoOf([&] { flush.get(); }), 0);
  EXPECT_EQ(d.below->bytes()[kLine + kPage], std::byte{1});
}

TEST(ClusterCacheConcurrentTest, SmallWriteWaitsForALargeOneAndWins) {
  CachedDevice d(Bytes(1 << 20));
  d.below->StopWrites(kLine, 2 * kLine);
  auto large = InBackground([&] { d.cache->Write(kLine, Filled(kLine, 2)); });
  d.below->AwaitStopped();
  auto small =
      InBackground([&] { d.cache->Write(kLine + 100, Filled(10, 3)); });
  EXPECT_FALSE(IsDone(small));
  d.cache->Write(0, Filled(100, 4));  // Another line does not wait.
  d.below->Resume();
  large.get();
  small.get();
  Bytes expected = Filled(kLine, 2);
  std::fill_n(expected.begin() + 100, 10, std::byte{3});
  EXPECT_EQ(d.Read(kLine, kLine), expected);
  d.cache->Flush();
  EXPECT_EQ(d.Read(kLine, kLine), expected);
}

TEST(ClusterCacheConcurrentTest, WriteDuringAWriteBackStaysDirty) {
  CachedDevice d(Bytes(1 << 20));
  d.cache->Write(0, Filled(kPage, 1));
  d.below->StopWrites(0, kPage);
  auto flush = InBackground([&] { d.cache->Flush(); });
  d.below->AwaitStopped();
  d.cache->Write(512, Filled(1024, 2));
  d.cache->Write(40 * kPage, Filled(kPage, 3));
  Bytes expected = Filled(kPage, 1);
  std::fill_n(expected.begin() + 512, 1024, std::byte{2});
  EXPECT_EQ(d.Read(0, kPage), expected);
  d.below->Resume();
  flush.get();
  // What was written behind the call is not this flush's affair.
  EXPECT_THAT(d.below->events(), ElementsAre(Written(0, kPage), kFlushed));
  EXPECT_EQ(d.cache->cached_bytes(), 2 * kPage);
  EXPECT_EQ(d.Read(0, kPage), expected);
  d.below->Forget();
  d.cache->Flush();
  EXPECT_THAT(
      d.below->events(),
      ElementsAre(Written(512, 1024), Written(40 * kPage, kPage), kFlushed));
  EXPECT_EQ(d.Read(0, kPage), expected);
}

TEST(ClusterCacheConcurrentTest, FailedWriteBackDoesNotUndoANewerWrite) {
  CachedDevice d(Bytes(1 << 20));
  d.cache->Write(0, Filled(kPage, 1));
  d.below->StopWrites(0, kPage);
  d.below->FailNthWrite(1, EIO);
  auto flush = InBackground([&] { d.cache->Flush(); });
  d.below->AwaitStopped();
  d.cache->Write(0, Filled(512, 2));
  d.below->Resume();
  EXPECT_EQ(ErrnoOf([&] { flush.get(); }), EIO);
  d.cache->Flush();
  Bytes expected = Filled(kPage, 1);
  std::fill_n(expected.begin(), 512, std::byte{2});
  EXPECT_EQ(d.Read(0, kPage), expected);
}

TEST(ClusterCacheConcurrentTest, CutBlockIsReadAgainIfItChangedMeanwhile) {
  enum class Change { kSmall, kLarge, kZeroes };
  for (const Change change :
       {Change::kSmall, Change::kLarge, Change::kZeroes}) {
    CachedDevice d(Bytes(1 << 20));
    // Behind the first read the whole block changes and is written back: what
    // that read has found is out of date.
    std::atomic<int> calls = 0;
    d.below->behind_read = [&] {
      if (calls++ != 0) return;
      switch (change) {
        case Change::kSmall:
          d.cache->Write(0, Filled(512, 1));
          d.cache->Flush();
          break;
        case Change::kLarge:
          d.cache->Write(0, Filled(kLine, 1));
          break;
        case Change::kZeroes:
          d.cache->Write(0, Filled(kLine, 1));
          d.cache->WriteZeroes(0, 100, ZeroMode::kKeepSpace);
          break;
      }
    };
    d.cache->Write(200, Filled(10, 2));
    EXPECT_EQ(calls, 2);
    d.below->behind_read = nullptr;
    Bytes expected = Filled(512, 1);
    std::fill_n(expected.begin() + 200, 10, std::byte{2});
    if (change == Change::kZeroes) {
      std::fill_n(expected.begin(), 100, std::byte{0});
    }
    EXPECT_EQ(d.Read(0, 512), expected);
  }
}

TEST(ClusterCacheConcurrentTest, FlushesAtOnceCoverWhatEachCallerWrote) {
  CachedDevice d(Bytes(1 << 20));
  d.below->SlowDown(200us);
  std::vector<std::jthread> threads;
  for (uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 1; i <= 40; ++i) {
        const uint64_t at = t * 700;
        d.cache->Write(at, Filled(700, i));
        d.cache->Flush();
        const Bytes found = d.below->bytes();
        EXPECT_EQ(found[at], std::byte(i));
        EXPECT_EQ(found[at + 699], std::byte(i));
      }
    });
  }
}

TEST(ClusterCacheConcurrentTest, WriterOfAFullCacheGoesOnWhenThereIsSpace) {
  CachedDevice d(Bytes(1 << 20), CachedDevice::Quiet(2 * kPage));
  d.below->StopWrites(0, 1 << 20);
  d.cache->Write(0, Filled(kPage, 1));
  d.below->AwaitStopped();
  d.cache->Write(kPage, Filled(kPage, 2));
  auto third = InBackground([&] { d.cache->Write(7 * kPage, Filled(9, 3)); });
  EXPECT_FALSE(IsDone(third));
  EXPECT_EQ(d.Read(kPage, kPage), Filled(kPage, 2)) << "readers do not wait";
  d.below->Resume();
  third.get();
  EXPECT_EQ(d.Read(7 * kPage, 9), Filled(9, 3));
}

// One thread writes ever higher numbers everywhere, in all ways; readers must
// find none below the last that was complete when they began.
TEST(ClusterCacheConcurrentTest, ReadersNeverSeeBytesFromBeforeACompleteWrite) {
  constexpr uint64_t kSize = 4 * kLine;
  auto options = CachedDevice::Quiet(6 * kPage);
  options.max_age = 1ms;
  CachedDevice d(Bytes(kSize), options);
  std::atomic<uint64_t> complete = 0;
  std::atomic<bool> stop = false;
  std::vector<std::jthread> threads;
  for (uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      std::vector<uint64_t> words(kSize / 8);
      while (!stop) {
        const uint64_t first = random() % words.size();
        const uint64_t count = 1 + random() % (words.size() - first);
        const uint64_t least = complete;
        const std::span out = std::span(words).first(count);
        d.cache->Read(first * 8, std::as_writable_bytes(out));
        ASSERT_GE(*std::ranges::min_element(out), least);
        if (random() % 64 == 0) d.cache->Flush();
      }
    });
  }
  std::mt19937_64 random(99);
  for (uint64_t number = 1; number <= 1500; ++number) {
    const std::vector<uint64_t> words(kSize / 8, number);
    const std::span bytes = std::as_bytes(std::span(words));
    for (uint64_t at = 0; at < kSize;) {
      const uint64_t length =
          std::min(kSize - at, random() % 3 == 0 ? kLine + random() % kLine
                                                 : 1 + random() % 6000);
      d.cache->Write(at, bytes.subspan(at, length));
      at += length;
    }
    complete = number;
  }
  stop = true;
}

}  // namespace
}  // namespace pellucid
