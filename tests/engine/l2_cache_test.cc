#include "engine/qcow2/l2_cache.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"

namespace pellucid::qcow2 {
namespace {

// A word that tells where it stands.
uint64_t WordAt(uint64_t offset) { return offset * 0x9e37'79b9'7f4a'7c15; }

Bytes WordsOfItsOffsets(size_t size) {
  Bytes content(size);
  for (uint64_t at = 0; at < size; at += 8) {
    StoreNumber(content, at, 8, WordAt(at));
  }
  return content;
}

TEST(L2CacheTest, WordsComeInHostByteOrder) {
  MemoryDevice file(WordsOfItsOffsets(64 << 10));
  L2Cache cache(file, 64 << 10, 1 << 20);
  std::array<uint64_t, 3> words;
  cache.Read({4096 + 40}, words);
  EXPECT_EQ(words[0], WordAt(4096 + 40));
  EXPECT_EQ(words[1], WordAt(4096 + 48));
  EXPECT_EQ(words[2], WordAt(4096 + 56));
}

TEST(L2CacheTest, SliceIsAsLongAsASmallTableAndFourKibOfALargeOne) {
  MemoryDevice file(WordsOfItsOffsets(8192));
  EXPECT_EQ(L2Cache(file, 512, 1 << 20).slice_bytes(), 512U);
  EXPECT_EQ(L2Cache(file, 4096, 1 << 20).slice_bytes(), 4096U);
  EXPECT_EQ(L2Cache(file, 2 << 20, 1 << 20).slice_bytes(), 4096U);
}

TEST(L2CacheTest, SecondReadOfASliceDoesNotTouchTheFile) {
  MemoryDevice file(WordsOfItsOffsets(64 << 10));
  L2Cache cache(file, 64 << 10, 1 << 20);
  uint64_t word;
  cache.Read({8192}, {&word, 1});
  const uint64_t reads = file.reads();
  for (uint64_t at = 8192; at < 8192 + 4096; at += 8) {
    cache.Read({at}, {&word, 1});
    ASSERT_EQ(word, WordAt(at));
  }
  EXPECT_EQ(file.reads(), reads);
}

TEST(L2CacheTest, OneLookupLoadsOneSliceOfALargeTable) {
  MemoryDevice file(WordsOfItsOffsets(2 << 20));
  L2Cache cache(file, 2 << 20, 16 << 20);
  uint64_t word;
  cache.Read({1 << 20}, {&word, 1});
  EXPECT_EQ(file.bytes_read(), 4096U);
}

TEST(L2CacheTest, HoldsNoMoreThanItsCapacity) {
  constexpr uint64_t kSlices = 64;
  constexpr uint64_t kCapacity = 16 * 4096;
  MemoryDevice file(WordsOfItsOffsets(kSlices * 4096));
  L2Cache cache(file, 4096, kCapacity);
  uint64_t word;
  for (uint64_t i = 0; i < kSlices; ++i) cache.Read({i * 4096}, {&word, 1});
  // What is still held is read without the file: at most the capacity.
  uint64_t held = 0;
  for (uint64_t i = kSlices; i-- > 0;) {
    const uint64_t before = file.reads();
    cache.Read({i * 4096}, {&word, 1});
    EXPECT_EQ(word, WordAt(i * 4096));
    if (file.reads() != before) break;
    ++held;
  }
  EXPECT_EQ(held, kCapacity / 4096);
}

TEST(L2CacheTest, SliceInUseSurvivesAScan) {
  constexpr uint64_t kSlices = 256;
  MemoryDevice file(WordsOfItsOffsets(kSlices * 4096));
  L2Cache cache(file, 4096, 8 * 4096);  // One set.
  uint64_t word;
  cache.Read({0}, {&word, 1});
  for (uint64_t i = 1; i < kSlices; ++i) {
    cache.Read({i * 4096}, {&word, 1});
    const uint64_t before = file.reads();
    cache.Read({0}, {&word, 1});
    ASSERT_EQ(file.reads(), before) << "evicted by slice " << i;
  }
}

TEST(L2CacheTest, NoCapacityAtAllStillReads) {
  MemoryDevice file(WordsOfItsOffsets(64 * 512));
  L2Cache cache(file, 512, 0);
  uint64_t word;
  for (uint64_t at = 0; at < file.size(); at += 8) {
    cache.Read({at}, {&word, 1});
    ASSERT_EQ(word, WordAt(at));
  }
}

TEST(L2CacheTest, FailedReadIsNotKept) {
  MemoryDevice file(WordsOfItsOffsets(8192));
  L2Cache cache(file, 4096, 1 << 20);
  uint64_t word;
  file.FailReads(4096, 4104);
  EXPECT_THROW(cache.Read({4200}, {&word, 1}), IoError);
  file.FailReads(0, 0);
  cache.Read({4200}, {&word, 1});
  EXPECT_EQ(word, WordAt(4200));
}

// Eight slots for many slices: nearly every read evicts while others copy.
TEST(L2CacheTest, ManyThreadsReadRightWordsUnderConstantEviction) {
  for (const uint64_t slice : {512U, 4096U}) {
    const uint64_t slices = 24;
    MemoryDevice file(WordsOfItsOffsets(slices * slice));
    L2Cache cache(file, slice, 8 * slice);
    std::atomic<uint64_t> wrong{0};
    std::vector<std::jthread> threads;
    for (unsigned seed = 0; seed < 6; ++seed) {
      threads.emplace_back([&, seed] {
        std::mt19937_64 random(seed);
        std::array<uint64_t, 512> words;
        for (int i = 0; i < 20000; ++i) {
          const uint64_t count = 1 + random() % (slice / 8);
          const uint64_t first = random() % (slice / 8 - count + 1);
          const uint64_t at = random() % slices * slice + first * 8;
          cache.Read({at}, std::span(words).first(count));
          for (uint64_t w = 0; w < count; ++w) {
            if (words[w] != WordAt(at + w * 8)) ++wrong;
          }
        }
      });
    }
    threads.clear();  // Joins them.
    EXPECT_EQ(wrong, 0U) << "slices of " << slice << " bytes";
    EXPECT_GT(file.reads(), 5000U) << "too few evictions to test anything";
  }
}

}  // namespace
}  // namespace pellucid::qcow2
