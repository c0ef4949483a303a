#include "tools/ordered_hashes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "crypto/unsupported_algorithm.h"
#include "tests/engine/host_files_fixture.h"
#include "tools/buffer_pool.h"
#include "tools/manifest_format.h"

namespace pellucid::cli {
namespace {

constexpr size_t kBufferBytes = 65536;

TEST(BufferPool, HasNoMoreThanItIsAllowed) {
  BufferPool pool(kBufferBytes, 2);
  const BufferPool::Buffer first = pool.Acquire();
  BufferPool::Buffer second = pool.Acquire();
  std::atomic<bool> got = false;
  std::jthread third([&] { got = pool.Acquire() != nullptr; });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(got);
  second.reset();
  third.join();
  EXPECT_TRUE(got);
}

TEST(BufferPool, NobodyWaitsBehindStop) {
  BufferPool pool(kBufferBytes, 1);
  const BufferPool::Buffer only = pool.Acquire();
  std::jthread waiting([&] { EXPECT_EQ(pool.Acquire(), nullptr); });
  pool.Stop();
}

TEST(BufferPool, ABufferMayOutliveIt) {
  BufferPool::Buffer buffer;
  {
    BufferPool pool(kBufferBytes, 1);
    buffer = pool.Acquire();
  }
  std::memset(buffer.get(), 1, kBufferBytes);
}

TEST(OrderedHashes, PiecesOfManyThreadsAreHashedInTheirOrder) {
  constexpr uint64_t kPieces = 300;
  const Bytes noise = Noise(kPieces * 100, 1);
  const std::vector<std::string> names = {"md5", "sha1", "sha256",
                                          "blake2b-512"};
  OrderedHashes hashes(names);
  BufferPool pool(kBufferBytes, 7);
  Bytes whole;
  for (uint64_t i = 0; i < kPieces; ++i) {
    // Every third piece is zeros.
    const auto begin = noise.begin() + static_cast<ptrdiff_t>(i * 100);
    if (i % 3 == 2) {
      whole.insert(whole.end(), 100000 + i, std::byte{0});
    } else {
      whole.insert(whole.end(), begin, begin + 100);
    }
  }
  {
    std::atomic<uint64_t> next = 0;
    std::vector<std::jthread> threads;
    for (int i = 0; i < 5; ++i) {
      threads.emplace_back([&] {
        for (;;) {
          BufferPool::Buffer buffer = pool.Acquire();
          const uint64_t piece = next++;
          if (piece >= kPieces) return;
          if (piece % 3 == 2) {
            hashes.AddZeros(piece, 100000 + piece);
          } else {
            std::copy_n(noise.begin() + static_cast<ptrdiff_t>(piece * 100),
                        100, buffer.get());
            hashes.Add(piece, std::move(buffer), 100);
          }
        }
      });
    }
  }
  const std::vector<Digest> digests = hashes.Finish();
  ASSERT_EQ(digests.size(), names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(digests[i].algorithm, names[i]);
    const auto hasher = crypto::MakeHasher(names[i]);
    std::vector<std::byte> expected(hasher->digest_size());
    hasher->Update(whole);
    hasher->Final(expected);
    EXPECT_EQ(FormatHex(digests[i].bytes), FormatHex(expected)) << names[i];
  }
}

TEST(OrderedHashes, ZerosFarAheadWaitForTheHash) {
  OrderedHashes hashes({"sha256"});
  std::atomic<uint64_t> added = 0;
  std::jthread adder([&] {
    for (uint64_t i = 1; i < 1000; ++i) {
      hashes.AddZeros(i, 1);
      added = i;
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LT(added, 100u);  // Piece 0 has not come.
  hashes.AddZeros(0, 1);
  adder.join();
  EXPECT_EQ(FormatHex(hashes.Finish()[0].bytes), Sha256(Bytes(1000)));
}

TEST(OrderedHashes, AbandonedOnesLetEverybodyGo) {
  BufferPool pool(kBufferBytes, 1);
  OrderedHashes hashes({"sha256", "md5"});
  hashes.Add(3, pool.Acquire(), 1);  // Pieces 0 to 2 never come.
  std::jthread far_ahead([&] { hashes.AddZeros(1000, 1); });
  hashes.Abandon();
  far_ahead.join();
  EXPECT_NE(pool.Acquire(), nullptr);
}

TEST(OrderedHashes, UnknownAlgorithmsAreRefused) {
  EXPECT_THROW(OrderedHashes({"sha256", "crc32"}),
               crypto::UnsupportedAlgorithm);
}

}  // namespace
}  // namespace pellucid::cli
