// Random operations on a cache that is always full, against a plain array.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "engine/cluster_cache.h"
#include "tests/engine/cached_device.h"
#include "tests/engine/host_files_fixture.h"

namespace pellucid {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kSize = 40 * kLine + 3 * kPage + 700;

ClusterCache::Options Busy() {
  ClusterCache::Options options = CachedDevice::Quiet(12 * kPage);
  options.max_age = 2ms;
  return options;
}

// A place of any alignment; short ones are more frequent.
struct Place {
  uint64_t offset;
  uint64_t length;
};
Place RandomPlace(std::mt19937_64& random) {
  constexpr uint64_t kMost[] = {100, 600, 5000, 3 * kPage, 3 * kLine};
  constexpr uint64_t kUnits[] = {1, 1, 512, kPage};
  const uint64_t unit = kUnits[random() % std::size(kUnits)];
  const uint64_t offset = random() % kSize / unit * unit;
  const uint64_t length =
      (1 + random() % kMost[random() % std::size(kMost)] + unit - 1) / unit *
      unit;
  return {offset, std::min(length, kSize - offset)};
}

TEST(ClusterCacheModelTest, RandomOperationsAgreeWithAnArray) {
  Bytes model = Noise(kSize, 1);
  CachedDevice d(model, Busy());
  std::mt19937_64 random(5);
  const Bytes noise = Noise(kSize, 2);
  for (int i = 0; i < 150000; ++i) {
    const auto [offset, length] = RandomPlace(random);
    const auto at = model.begin() + static_cast<ptrdiff_t>(offset);
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const std::span in =
            std::span(noise).subspan(random() % (kSize - length + 1), length);
        d.cache->Write(offset, in);
        std::ranges::copy(in, at);
        break;
      }
      case 4:
        d.cache->WriteZeroes(
            offset, length,
            random() % 2 != 0 ? ZeroMode::kFreeSpace : ZeroMode::kKeepSpace);
        std::fill_n(at, length, std::byte{0});
        break;
      case 5:
        if (random() % 50 == 0) {
          d.cache->Flush();
        } else {
          const Extent extent = d.cache->ExtentAt(offset, length);
          ASSERT_GT(extent.length, 0U);
          ASSERT_LE(extent.length, length);
          if (extent.is_hole) {
            ASSERT_TRUE(
                std::all_of(at, at + static_cast<ptrdiff_t>(extent.length),
                            [](std::byte b) { return b == std::byte{0}; }));
          }
        }
        break;
      default: {
        const Bytes found = d.Read(offset, length);
        ASSERT_TRUE(std::equal(found.begin(), found.end(), at))
            << "operation " << i << ": " << length << " bytes at " << offset;
      }
    }
    ASSERT_LE(d.cache->cached_bytes(), 12 * kPage);
  }
  d.cache->Flush();
  EXPECT_EQ(d.below->bytes(), model);
}

// Each thread has every fourth piece of 700 bytes, so that blocks, pages and
// lines are shared, and lines of its own behind them for large writes.
TEST(ClusterCacheModelTest, ThreadsThatShareBlocksDoNotDisturbEachOther) {
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kPiece = 700;
  constexpr uint64_t kPieces = 160;
  constexpr uint64_t kOwn = 8 * kLine;  // Where the threads' own lines begin.
  constexpr uint64_t kOwnBytes = 8 * kLine;
  static_assert(kPieces * kPiece < kOwn && kOwn + kThreads * kOwnBytes < kSize);
  const Bytes before = Noise(kSize, 1);
  CachedDevice d(before, Busy());
  std::vector<Bytes> models(kThreads, before);
  {
    std::vector<std::jthread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Bytes& model = models[t];
        const Bytes noise = Noise(kSize, 10 + t);
        std::mt19937_64 random(t);
        for (int i = 0; i < 12000; ++i) {
          uint64_t begin = kOwn + t * kOwnBytes;
          uint64_t room = kOwnBytes;
          if (random() % 4 != 0) {
            begin = (random() % (kPieces / kThreads) * kThreads + t) * kPiece;
            room = kPiece;
          }
          const uint64_t skip = random() % room;
          const uint64_t offset = begin + skip;
          const uint64_t length = 1 + random() % (room - skip);
          const auto at = model.begin() + static_cast<ptrdiff_t>(offset);
          switch (random() % 8) {
            case 0:
              d.cache->WriteZeroes(offset, length, ZeroMode::kFreeSpace);
              std::fill_n(at, length, std::byte{0});
              break;
            case 1:
              if (random() % 100 == 0) d.cache->Flush();
              break;
            case 2:
            case 3:
            case 4: {
              const Bytes found = d.Read(offset, length);
              ASSERT_TRUE(std::equal(found.begin(), found.end(), at))
                  << "thread " << t << ", operation " << i;
              break;
            }
            default: {
              const std::span in = std::span(noise).subspan(
                  random() % (kSize - length + 1), length);
              d.cache->Write(offset, in);
              std::ranges::copy(in, at);
            }
          }
        }
      });
    }
  }
  d.cache->Flush();
  Bytes expected = before;
  const auto take = [&](uint64_t t, uint64_t offset, uint64_t length) {
    std::copy_n(models[t].begin() + static_cast<ptrdiff_t>(offset), length,
                expected.begin() + static_cast<ptrdiff_t>(offset));
  };
  for (uint64_t piece = 0; piece < kPieces; ++piece) {
    take(piece % kThreads, piece * kPiece, kPiece);
  }
  for (uint64_t t = 0; t < kThreads; ++t) {
    take(t, kOwn + t * kOwnBytes, kOwnBytes);
  }
  EXPECT_EQ(d.below->bytes(), expected);
}

// Everybody writes everywhere, always the same bytes: nothing else may appear.
TEST(ClusterCacheModelTest, ThreadsThatWriteTheSameBytesFindThem) {
  const Bytes model = Noise(kSize, 1);
  CachedDevice d(model, Busy());
  {
    std::vector<std::jthread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937_64 random(t);
        for (int i = 0; i < 15000; ++i) {
          const auto [offset, length] = RandomPlace(random);
          const auto same = std::span(model).subspan(offset, length);
          if (random() % 400 == 0) {
            d.cache->Flush();
          } else if (random() % 2 == 0) {
            d.cache->Write(offset, same);
          } else {
            const Bytes found = d.Read(offset, length);
            ASSERT_TRUE(std::ranges::equal(found, same));
          }
        }
      });
    }
  }
  d.cache->Flush();
  EXPECT_EQ(d.below->bytes(), model);
  EXPECT_EQ(d.cache->cached_bytes(), 0U);
}

// A few pages cannot be written; what fills the rest of the cache can.
TEST(ClusterCacheModelTest, ThreadsWriteOnBesidePagesThatCannotBeWritten) {
  constexpr uint64_t kBad = 5;
  CachedDevice d(Bytes(kSize), Busy());
  d.below->FailWrites(0, kBad * kPage, EIO);
  for (uint64_t page = 0; page < kBad; ++page) {
    d.cache->Write(page * kPage, Filled(kPage, 1));
  }
  {
    std::vector<std::jthread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t i = 0; i < 2000; ++i) {
          const uint64_t page = 8 + (i * 4 + t) % 150;
          ASSERT_NO_THROW(d.cache->Write(page * kPage, Filled(kPage, 2)));
        }
      });
    }
  }
  EXPECT_EQ(ErrnoOf([&] { d.cache->Flush(); }), EIO);
  d.below->FailWrites(0, 0, 0);
  (void)ErrnoOf([&] { d.cache->Flush(); });  // Of the background.
  d.cache->Flush();
  EXPECT_EQ(d.Read(0, kBad * kPage), Filled(kBad * kPage, 1));
  EXPECT_EQ(d.below->bytes()[kPage], std::byte{1});
}

// Writes fail now and then: each is reported, none costs a byte.
TEST(ClusterCacheModelTest, FailuresLoseNothing) {
  Bytes model = Noise(kSize, 1);
  CachedDevice d(model, Busy());
  std::mt19937_64 random(5);
  const Bytes noise = Noise(kSize, 2);
  for (int i = 0; i < 8000; ++i) {
    if (random() % 50 == 0) d.below->FailNthWrite(1 + random() % 4, ENOSPC);
    const Place place = RandomPlace(random);
    const uint64_t offset = place.offset;
    const auto in = std::span(noise).subspan(offset, place.length);
    // A write that failed left any mixture; written again, it is whole.
    while (ErrnoOf([&] { d.cache->Write(offset, in); }) != 0) {
    }
    std::ranges::copy(in, model.begin() + static_cast<ptrdiff_t>(offset));
    if (i % 16 == 0) {
      ASSERT_EQ(d.Read(0, kSize), model) << i;
    }
  }
  d.below->FailNthWrite(0, 0);
  (void)ErrnoOf([&] { d.cache->Flush(); });  // Reports what is left to report.
  d.cache->Flush();
  EXPECT_EQ(d.below->bytes(), model);
}

}  // namespace
}  // namespace pellucid
