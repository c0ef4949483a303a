#include "engine/cluster_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "tests/engine/cached_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/writable_memory_device.h"

namespace pellucid {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Event = WritableMemoryDevice::Event;

TEST(ClusterCacheTest, SmallWriteStaysAboveUntilItIsFlushed) {
  CachedDevice d(Filled(1 << 20, 0x11));
  const Bytes in = Noise(kPage, 1);
  d.cache->Write(8 * kPage, in);
  EXPECT_EQ(d.Read(8 * kPage, kPage), in);
  EXPECT_THAT(d.below->events(), IsEmpty());
  EXPECT_EQ(d.below->reads(), 0U) << "all of it is cached";
  d.cache->Flush();
  EXPECT_THAT(d.below->events(),
              ElementsAre(Written(8 * kPage, kPage), kFlushed));
  EXPECT_EQ(d.below->reads(), 0U);
  EXPECT_EQ(d.cache->cached_bytes(), 0U);
  EXPECT_EQ(d.Read(8 * kPage, kPage), in);
}

TEST(ClusterCacheTest, ReadPutsDirtyBytesOverWhatIsBelow) {
  Bytes model = Noise(1 << 20, 1);
  CachedDevice d(model);
  for (const uint64_t at : {512U, 5000U, 4096U * 4U - 700U, 70000U}) {
    const Bytes in = Noise(1234, at);
    d.cache->Write(at, in);
    std::ranges::copy(in, model.begin() + static_cast<ptrdiff_t>(at));
  }
  for (const uint64_t at : {0U, 1U, 511U, 5001U, 16000U, 69999U}) {
    for (const uint64_t length : {1U, 700U, 4096U, 90000U}) {
      EXPECT_EQ(d.Read(at, length),
                Bytes(model.begin() + static_cast<ptrdiff_t>(at),
                      model.begin() + static_cast<ptrdiff_t>(at + length)));
    }
  }
}

TEST(ClusterCacheTest, NeighboursGoDownAsOneWriteInAscendingOrder) {
  CachedDevice d(Bytes(1 << 20));
  for (const uint64_t page : {9U, 3U, 1U, 20U, 2U, 0U, 10U, 5U, 4U}) {
    d.cache->Write(page * kPage, Filled(kPage, static_cast<int>(page + 1)));
  }
  d.cache->Write(21 * kPage + 512, Filled(1024, 77));
  d.cache->Write(21 * kPage + 3072, Filled(512, 78));
  d.cache->Flush();
  EXPECT_THAT(
      d.below->events(),
      ElementsAre(Written(0, 6 * kPage), Written(9 * kPage, 2 * kPage),
                  Written(20 * kPage, kPage), Written(21 * kPage + 512, 1024),
                  Written(21 * kPage + 3072, 512), kFlushed));
  for (const uint64_t page : {0U, 1U, 5U, 10U, 20U}) {
    EXPECT_EQ(d.below->bytes()[page * kPage], std::byte(page + 1));
  }
}

TEST(ClusterCacheTest, LongRunsAreCutAtLines) {
  CachedDevice d(Bytes(8 << 20), CachedDevice::Quiet(32 << 20));
  // From the middle of a line to the middle of one.
  for (uint64_t page = 2; page < 1001; ++page) {
    d.cache->Write(page * kPage, Filled(kPage, 1));
  }
  d.cache->Flush();
  std::vector<Event> events = d.below->events();
  ASSERT_EQ(events.back(), kFlushed);
  events.pop_back();
  EXPECT_LE(events.size(), 5U);
  uint64_t at = 2 * kPage;
  for (const Event& event : events) {
    EXPECT_EQ(event.offset, at);
    EXPECT_LE(event.length, 1U << 20);
    at += event.length;
    EXPECT_TRUE(at % kLine == 0 || at == 1001 * kPage) << at;
  }
  EXPECT_EQ(at, 1001 * kPage);
}

TEST(ClusterCacheTest, AppendingSmallPiecesReadsEachBlockOnce) {
  CachedDevice d(Filled(1 << 20, 0x11));
  for (uint64_t at = 100; at < 100 + 2048; at += 64) {
    d.cache->Write(at, Filled(64, 0x22));
  }
  EXPECT_EQ(d.below->reads(), 5U) << "blocks 0 to 4";
  Bytes expected = Filled(4096, 0x11);
  std::fill_n(expected.begin() + 100, 2048, std::byte{0x22});
  EXPECT_EQ(d.Read(0, 4096), expected);
}

TEST(ClusterCacheTest, WholeLinesGoPastTheCacheAndReplaceWhatItHas) {
  CachedDevice d(Bytes(1 << 20));
  d.cache->Write(kLine + 100, Filled(5000, 1));
  d.cache->Write(4 * kLine, Filled(kPage, 2));
  d.below->Forget();
  const Bytes in = Noise(3 * kLine + 2 * kPage, 3);
  d.cache->Write(kLine - kPage, in);
  EXPECT_THAT(d.below->events(), ElementsAre(Written(kLine, 3 * kLine)));
  EXPECT_EQ(d.Read(kLine - kPage, in.size()), in);
  EXPECT_EQ(d.cache->cached_bytes(), 2 * kPage);
  d.cache->Flush();
  EXPECT_EQ(d.Read(kLine - kPage, in.size()), in);
}

TEST(ClusterCacheTest, ZeroesGoDownAtOnceAndCutWhatIsDirty) {
  Bytes model = Filled(1 << 20, 0x11);
  CachedDevice d(model);
  d.cache->Write(0, Filled(3 * kPage, 0x22));
  std::fill_n(model.begin(), 3 * kPage, std::byte{0x22});
  d.below->Forget();
  d.cache->WriteZeroes(700, 2 * kPage, ZeroMode::kKeepSpace);
  std::fill_n(model.begin() + 700, 2 * kPage, std::byte{0});
  EXPECT_THAT(d.below->events(), ElementsAre(Zeroed(700, 2 * kPage)));
  EXPECT_EQ(d.Read(0, 1 << 20), model);
  d.cache->Flush();
  EXPECT_EQ(d.below->bytes(), model);
  d.cache->WriteZeroes(0, 0, ZeroMode::kFreeSpace);
  d.cache->WriteZeroes(0, 1 << 20, ZeroMode::kFreeSpace);
  EXPECT_EQ(d.Read(0, 1 << 20), Bytes(1 << 20));
}

TEST(ClusterCacheTest, DirtyBytesAreData) {
  CachedDevice d(Bytes(1 << 20));
  d.cache->Write(2 * kPage, Bytes(2 * kPage));
  const auto extent = [&](uint64_t offset, uint64_t length) {
    const Extent e = d.cache->ExtentAt(offset, length);
    return std::pair(e.length, e.is_hole);
  };
  EXPECT_EQ(extent(0, 1 << 20), std::pair(uint64_t{512}, true));
  EXPECT_EQ(extent(2 * kPage - 100, 1 << 20), std::pair(uint64_t{100}, true));
  // No longer than the hole below.
  EXPECT_EQ(extent(2 * kPage, 1 << 20), std::pair(uint64_t{512}, false));
  EXPECT_EQ(extent(2 * kPage + 700, 100), std::pair(uint64_t{100}, false));
  EXPECT_EQ(extent(3 * kPage + 5, 2 * kPage), std::pair(uint64_t{507}, false));
  EXPECT_EQ(extent(4 * kPage, 1 << 20), std::pair(uint64_t{512}, true));
  d.cache->Flush();
  EXPECT_EQ(extent(2 * kPage, 1 << 20), std::pair(uint64_t{512}, true));
}

TEST(ClusterCacheTest, DeviceMayEndWithinABlock) {
  constexpr uint64_t kSize = 3 * kLine + kPage + 700;
  Bytes model = Noise(kSize, 1);
  CachedDevice d(model);
  d.cache->Write(kSize - 188, Filled(188, 7));
  EXPECT_EQ(d.below->reads(), 0U) << "the last block was written whole";
  std::fill_n(model.end() - 188, 188, std::byte{7});
  EXPECT_EQ(d.Read(0, kSize), model);
  d.cache->Write(kSize - 10, Filled(10, 8));
  std::fill_n(model.end() - 10, 10, std::byte{8});
  d.cache->Flush();
  EXPECT_EQ(d.below->bytes(), model);
  d.cache->Write(kSize - 10, Filled(10, 9));
  d.cache->WriteZeroes(kSize - 188, 188, ZeroMode::kKeepSpace);
  std::fill_n(model.end() - 188, 188, std::byte{0});
  EXPECT_EQ(d.cache->cached_bytes(), 0U);
  EXPECT_EQ(d.Read(0, kSize), model);
}

TEST(ClusterCacheTest, WritethroughIsDurableOnReturn) {
  auto options = CachedDevice::Quiet(1 << 20);
  options.mode = ClusterCache::Mode::kWritethrough;
  CachedDevice d(Filled(1 << 20, 1), options);
  d.cache->Write(100, Filled(100, 2));
  d.cache->WriteZeroes(150, 10, ZeroMode::kKeepSpace);
  EXPECT_THAT(d.below->events(), ElementsAre(Written(100, 100), kFlushed,
                                             Zeroed(150, 10), kFlushed));
  EXPECT_EQ(d.Read(100, 50), Filled(50, 2));
  d.below->FailFlushes(1, EIO);
  EXPECT_EQ(ErrnoOf([&] { d.cache->Write(0, Filled(1, 1)); }), EIO);
}

TEST(ClusterCacheTest, WritethroughSharesFlushesBetweenThreads) {
  auto options = CachedDevice::Quiet(1 << 20);
  options.mode = ClusterCache::Mode::kWritethrough;
  CachedDevice d(Bytes(1 << 20), options);
  d.below->SlowDown(2ms);
  constexpr uint64_t kThreads = 8;
  constexpr uint64_t kWrites = 20;
  {
    std::vector<std::jthread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t i = 0; i < kWrites; ++i) {
          d.cache->Write(t * kPage, Filled(512, 1));
        }
      });
    }
  }
  EXPECT_EQ(d.below->writes(), kThreads * kWrites);
  EXPECT_LT(d.below->flushes(), kThreads * kWrites * 3 / 4);
}

TEST(ClusterCacheTest, OldPagesAreWrittenBackAndFlushedByThemselves) {
  auto options = CachedDevice::Quiet(4 << 20);
  options.max_age = 30ms;
  CachedDevice d(Bytes(1 << 20), options);
  for (int round = 0; round < 3; ++round) {
    d.below->Forget();
    d.cache->Write(kPage, Filled(kPage, 5));
    ASSERT_TRUE(Eventually([&] { return d.below->events().size() == 2; }));
    EXPECT_THAT(d.below->events(),
                ElementsAre(Written(kPage, kPage), kFlushed));
  }
  // What went past the cache is flushed as well.
  d.below->Forget();
  d.cache->Write(kLine, Filled(kLine, 5));
  ASSERT_TRUE(Eventually([&] { return d.below->events().size() == 2; }));
  EXPECT_THAT(d.below->events(), ElementsAre(Written(kLine, kLine), kFlushed));
  // Clean: nothing more happens.
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(d.below->events().size(), 2U);
}

TEST(ClusterCacheTest, HalfAFullCacheIsWrittenBackWithoutAFlush) {
  CachedDevice d(Bytes(1 << 20), CachedDevice::Quiet(16 * kPage));
  for (uint64_t page = 0; page < 7; ++page) {
    d.cache->Write(page * kPage, Filled(kPage, 1));
  }
  std::this_thread::sleep_for(20ms);
  EXPECT_THAT(d.below->events(), IsEmpty());
  d.cache->Write(7 * kPage, Filled(kPage, 1));
  ASSERT_TRUE(Eventually([&] { return d.cache->cached_bytes() == 0; }));
  EXPECT_THAT(d.below->events(), ElementsAre(Written(0, 8 * kPage)));
  EXPECT_EQ(d.below->flushes(), 0U);
}

TEST(ClusterCacheTest, MemoryIsBoundedWhileManyThreadsWrite) {
  constexpr uint64_t kCapacity = 32 * kPage;
  CachedDevice d(Bytes(16 << 20), CachedDevice::Quiet(kCapacity));
  d.below->SlowDown(50us);
  std::atomic<uint64_t> most = 0;
  {
    std::vector<std::jthread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t i = 0; i < 1000; ++i) {
          d.cache->Write((i * 4 + t) * kPage, Filled(kPage, 1));
          const uint64_t now = d.cache->cached_bytes();
          uint64_t before = most;
          while (before < now && !most.compare_exchange_weak(before, now)) {
          }
        }
      });
    }
  }
  EXPECT_LE(most, kCapacity);
  EXPECT_GT(most, kCapacity / 4);
  d.cache->Flush();
  EXPECT_EQ(Bytes(4000 * kPage, std::byte{1}), d.Read(0, 4000 * kPage));
}

TEST(ClusterCacheTest, FailedWriteBackStaysDirtyAndIsReportedByEachFlush) {
  CachedDevice d(Bytes(1 << 20));
  d.below->FailWrites(0, kPage, ENOSPC);
  d.cache->Write(100, Filled(100, 1));
  d.cache->Write(10 * kLine, Filled(kPage, 2));
  EXPECT_EQ(ErrnoOf([&] { d.cache->Flush(); }), ENOSPC);
  EXPECT_EQ(d.below->bytes()[10 * kLine], std::byte{2})
      << "what can be written is written";
  EXPECT_EQ(d.cache->cached_bytes(), kPage);
  EXPECT_EQ(d.Read(100, 100), Filled(100, 1));
  EXPECT_EQ(ErrnoOf([&] { d.cache->Flush(); }), ENOSPC);
  d.cache->Write(110, Filled(10, 3));
  d.below->FailWrites(0, 0, 0);
  d.cache->Flush();
  Bytes expected = Filled(100, 1);
  std::fill_n(expected.begin() + 10, 10, std::byte{3});
  const Bytes found = d.below->bytes();
  EXPECT_EQ(Bytes(found.begin() + 100, found.begin() + 200), expected);
  EXPECT_NO_THROW(d.cache->Flush());
}

TEST(ClusterCacheTest, BackgroundErrorIsKeptThoughALaterAttemptSucceeds) {
  auto options = CachedDevice::Quiet(4 << 20);
  options.max_age = 20ms;
  options.retry_after = 20ms;
  CachedDevice d(Bytes(1 << 20), options);
  d.below->FailNthWrite(1, ENOSPC);
  d.cache->Write(0, Filled(kPage, 1));
  ASSERT_TRUE(Eventually([&] { return d.cache->cached_bytes() == 0; }));
  EXPECT_EQ(d.below->bytes()[0], std::byte{1});
  EXPECT_EQ(ErrnoOf([&] { d.cache->Flush(); }), ENOSPC);
  EXPECT_NO_THROW(d.cache->Flush());
}

TEST(ClusterCacheTest, BackgroundFlushErrorIsKeptAndTriedAgain) {
  auto options = CachedDevice::Quiet(4 << 20);
  options.max_age = 20ms;
  options.retry_after = 20ms;
  CachedDevice d(Bytes(1 << 20), options);
  d.below->FailFlushes(1, EIO);
  d.cache->Write(0, Filled(kPage, 1));
  ASSERT_TRUE(Eventually([&] { return d.below->flushes() >= 2; }));
  EXPECT_EQ(ErrnoOf([&] { d.cache->Flush(); }), EIO);
  EXPECT_NO_THROW(d.cache->Flush());
}

TEST(ClusterCacheTest, DeferredErrorsAreReportedOnce) {
  auto options = CachedDevice::Quiet(4 << 20);
  options.max_age = 20ms;
  options.retry_after = 20ms;
  for (const bool flush_fails : {false, true}) {
    SCOPED_TRACE(flush_fails);
    CachedDevice d(Bytes(1 << 20), options);
    EXPECT_NO_THROW(d.cache->ReportDeferredError());
    if (flush_fails) {
      d.below->FailFlushes(1, EDQUOT);
    } else {
      d.below->FailNthWrite(1, EDQUOT);
    }
    d.cache->Write(0, Filled(kPage, 1));
    // A later attempt has succeeded: the error is told all the same.
    ASSERT_TRUE(Eventually([&] {
      const auto events = d.below->events();
      return !events.empty() && events.back() == kFlushed;
    }));
    EXPECT_EQ(ErrnoOf([&] { d.cache->ReportDeferredError(); }), EDQUOT);
    EXPECT_NO_THROW(d.cache->ReportDeferredError());
    EXPECT_NO_THROW(d.cache->Flush());
  }
}

TEST(ClusterCacheTest, FailedFlushIsReportedAndTriedAgain) {
  CachedDevice d(Bytes(1 << 20));
  d.cache->Write(0, Filled(kPage, 1));
  d.below->FailFlushes(2, EIO);
  EXPECT_EQ(ErrnoOf([&] { d.cache->Flush(); }), EIO);
  EXPECT_EQ(ErrnoOf([&] { d.cache->Flush(); }), EIO);
  EXPECT_NO_THROW(d.cache->Flush());
  EXPECT_EQ(d.below->events().back(), kFlushed);
}

TEST(ClusterCacheTest, FullCacheThatCannotBeWrittenBackFailsItsWriters) {
  CachedDevice d(Bytes(1 << 20), CachedDevice::Quiet(8 * kPage));
  d.below->FailWrites(0, 1 << 20, ENOSPC);
  int error = 0;
  uint64_t page = 0;
  for (; page < 100 && error == 0; ++page) {
    error = ErrnoOf([&] { d.cache->Write(page * kPage, Filled(kPage, 1)); });
  }
  EXPECT_EQ(error, ENOSPC);
  EXPECT_EQ(page, 9U) << "eight pages fit";
  EXPECT_EQ(ErrnoOf([&] { d.cache->Write(1, Filled(10, 2)); }), 0)
      << "a page that is there can be written";
  // There is space again.
  d.below->FailWrites(0, 0, 0);
  d.cache->Write(50 * kPage, Filled(kPage, 3));
  EXPECT_EQ(ErrnoOf([&] { d.cache->Flush(); }), ENOSPC) << "not told yet";
  EXPECT_NO_THROW(d.cache->Flush());
  const Bytes found = d.below->bytes();
  EXPECT_EQ(found[0], std::byte{1});
  EXPECT_EQ(found[1], std::byte{2});
  EXPECT_EQ(found[7 * kPage], std::byte{1});
  EXPECT_EQ(found[50 * kPage], std::byte{3});
}

TEST(ClusterCacheTest, FailedLargeWriteIsReportedToItsWriter) {
  CachedDevice d(Bytes(1 << 20));
  d.cache->Write(kLine, Filled(kPage, 1));
  d.below->FailWrites(kLine, kLine + 1, EIO);
  EXPECT_EQ(ErrnoOf([&] { d.cache->Write(0, Filled(2 * kLine, 2)); }), EIO);
  EXPECT_EQ(ErrnoOf([&] {
              d.cache->WriteZeroes(0, 2 * kLine, ZeroMode::kFreeSpace);
            }),
            EIO);
  d.below->FailWrites(0, 0, 0);
  d.cache->Write(0, Filled(2 * kLine, 3));
  d.cache->Flush();
  EXPECT_EQ(d.Read(0, 2 * kLine), Filled(2 * kLine, 3));
}

TEST(ClusterCacheTest, DestructorWritesNothing) {
  std::vector<Event> events;
  struct Witness : WritableMemoryDevice {
    explicit Witness(std::vector<Event>* to)
        : WritableMemoryDevice(Bytes(1 << 20)), to_(to) {}
    ~Witness() override { *to_ = WritableMemoryDevice::events(); }
    std::vector<Event>* to_;
  };
  {
    ClusterCache cache(std::make_unique<Witness>(&events));
    cache.Write(0, Filled(kPage, 1));
  }
  EXPECT_THAT(events, IsEmpty());
}

}  // namespace
}  // namespace pellucid
