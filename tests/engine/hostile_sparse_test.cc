// Files that are terabytes long and take kilobytes of the disk: a few entries
// claim tables, clusters and refcounts all over them. To look at such a file,
// to repair it, to write to it takes no more time and memory than others.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/check_image.h"
#include "engine/errors.h"
#include "engine/image_map.h"
#include "engine/image_snapshots.h"
#include "engine/open_image.h"
#include "engine/open_unallocated.h"
#include "engine/qcow2/cluster_counts.h"
#include "engine/stale_clusters.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/hostile_session.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

using testing::HasSubstr;

constexpr uint64_t kTiB = uint64_t{1} << 40;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCopied = uint64_t{1} << 63;

// An image whose tables a test puts where it likes. The header is in cluster 0;
// L1 table, refcount table, and its only block that counts the first clusters
// of the file once, stand in clusters 1, 2 and 3.
class HostileSparseTest : public testing::Test {
 protected:
  void Make(uint32_t cluster_bits, uint32_t refcount_order = 4) {
    cluster_ = uint64_t{1} << cluster_bits;
    start_.assign(4 * cluster_, std::byte{0});
    Set(0, 4, 0x514649fb);
    Set(4, 4, 3);
    Set(20, 4, cluster_bits);
    Set(24, 8, 16 << 10);
    Set(36, 4, 1);
    Set(40, 8, cluster_);
    Set(48, 8, 2 * cluster_);
    Set(56, 4, 1);
    Set(96, 4, refcount_order);
    Set(100, 4, 104);
    Set(2 * cluster_, 8, 3 * cluster_);
    if (refcount_order == 4) {
      for (uint64_t i = 0; i < 4; ++i) Set(3 * cluster_ + i * 2, 2, 1);
    } else {
      Set(3 * cluster_, 1, 0x0f);
    }
  }
  void Set(uint64_t at, unsigned width, uint64_t value) {
    if (start_.size() < at + width) start_.resize(at + width);
    StoreNumber(start_, at, width, value);
  }

  fs::path image() const { return folder_ / "disk.qcow2"; }
  OpenOptions options(bool writable) const {
    OpenOptions options;
    options.image = image();
    options.writable = writable;
    return options;
  }

  void Restore(uint64_t size) const {
    WriteHostFile(image(), start_);
    fs::resize_file(image(), size);
  }

  // Everything that is done with an image, each on a fresh file of `size`
  // bytes. What is refused is refused, but in time.
  void ExpectBounded(uint64_t size) const {
    const auto run = [&](const char* name,
                         const std::function<void()>& action) {
      Restore(size);
      ExpectBoundedSession(name, action);
    };
    KnownPassphrases none;
    run("info", [&] { DescribeImage(options(false)); });
    run("read", [&] {
      const OpenedImage opened = OpenImage(options(false), none);
      Bytes content(std::min(opened.device->size(), kMiB));
      opened.device->ExtentAt(0, opened.device->size());
      opened.device->Read(0, content);
    });
    run("map", [&] { ImageMap(options(false)).ForEachExtent([](auto&) {}); });
    run("stale clusters", [&] { FindStaleClusters(options(false)); });
    run("unallocated", [&] {
      const OpenedImage opened = OpenUnallocated(options(false), none);
      opened.device->ExtentAt(0, opened.device->size());
    });
    run("write", [&] {
      const OpenedImage opened = OpenImage(options(true), none);
      opened.writable->Write(1000, Bytes(300, std::byte{1}));
      opened.writable->Flush();
    });
    run("check", [&] { CheckImage(options(false), Repair::kNone); });
    run("repair", [&] { CheckImage(options(false), Repair::kAll); });
    run("snapshot", [&] { ImageSnapshots(image()).Create("snapshot"); });
  }

  ScratchFolder folder_;
  Bytes start_;
  uint64_t cluster_ = 0;
};

TEST_F(HostileSparseTest, FileOfABillionClusters) {
  Make(9);
  const uint64_t size = kTiB / 2 - 2 * cluster_;
  ExpectBounded(size);
  Restore(size);
  EXPECT_EQ(CheckImage(options(false), Repair::kNone)
                .findings.count(Severity::kCorruption),
            0U);
}

TEST_F(HostileSparseTest, LongEmptyRefcountTableInFrontOfAClusterAtTheEnd) {
  Make(9);
  const uint64_t size = kTiB / 2 - 2 * cluster_;
  Set(56, 4, 8 * kMiB / cluster_);
  Set(48, 8, kMiB);
  Set(kMiB, 8, 3 * cluster_);
  Set(cluster_, 8, kCopied | 4 * cluster_);
  Set(4 * cluster_, 8, kCopied | (size - cluster_));
  ExpectBounded(size);
}

TEST_F(HostileSparseTest, OneRefcountBlockForEveryPartOfTheFile) {
  // Entries enough for 2^40 clusters, all of which the one block calls used.
  Make(21, 0);
  Set(56, 4, 4);
  Set(48, 8, 4 * cluster_);
  for (uint64_t at = 0; at < 8 * kMiB; at += 8) {
    Set(4 * cluster_ + at, 8, 3 * cluster_);
  }
  for (uint64_t at = 0; at < cluster_; at += 8) {
    Set(3 * cluster_ + at, 8, UINT64_MAX);
  }
  ExpectBounded(kTiB);
}

TEST_F(HostileSparseTest, RefcountBlocksThatAreHoles) {
  Make(21);
  Set(56, 4, 4);
  Set(48, 8, 4 * cluster_);
  for (uint64_t i = 0; i < kMiB; ++i) {
    Set(4 * cluster_ + i * 8, 8, (16 + i) * cluster_);
  }
  ExpectBounded(3 * kTiB);
}

TEST_F(HostileSparseTest, RefcountFarBehindTheEndOfTheFile) {
  Make(16);
  Set(56, 4, 128);
  Set(48, 8, 8 * cluster_);
  Set(8 * cluster_, 8, 3 * cluster_);
  Set(4 * cluster_, 8, UINT64_MAX);
  Set(8 * cluster_ + 8 * kMiB - 8, 8, 4 * cluster_);
  for (uint64_t i = 0; i < 136; ++i) Set(3 * cluster_ + i * 2, 2, 1);
  ExpectBounded(136 * cluster_);
}

TEST_F(HostileSparseTest, L2TablesThatAreHoles) {
  Make(21);
  constexpr uint64_t kEntries = 128 << 10;
  Set(36, 4, kEntries);
  Set(40, 8, 4 * cluster_);
  for (uint64_t i = 0; i < kEntries; ++i) {
    Set(4 * cluster_ + i * 8, 8, kCopied | (16 + i) * cluster_);
  }
  ExpectBounded(3 * kTiB);
}

TEST_F(HostileSparseTest, SnapshotsWhoseL1TablesAreHoles) {
  Make(16);
  constexpr uint32_t kSnapshots = 8192;
  constexpr uint64_t kL1Bytes = 32 << 20;
  Set(60, 4, kSnapshots);
  Set(64, 8, 4 * cluster_);
  for (uint64_t i = 0; i < kSnapshots; ++i) {
    const uint64_t entry = 4 * cluster_ + i * 40;
    Set(entry, 8, kTiB + i * kL1Bytes);
    Set(entry + 8, 4, kL1Bytes / 8);
    Set(entry + 36, 4, 0);
  }
  ExpectBounded(2 * kTiB);
}

TEST_F(HostileSparseTest, BitmapTablesThatAreHoles) {
  Make(16);
  constexpr uint32_t kBitmaps = 1000;
  Set(88, 8, 1);
  Set(104, 4, 0x23852875);
  Set(108, 4, 24);
  Set(112, 4, kBitmaps);
  Set(120, 8, kBitmaps * 32);
  Set(128, 8, 4 * cluster_);
  for (uint64_t i = 0; i < kBitmaps; ++i) {
    const uint64_t entry = 4 * cluster_ + i * 32;
    Set(entry, 8, kTiB + (i << 30));
    Set(entry + 8, 4, 1 << 27);
    Set(entry + 18, 2, 8);
  }
  ExpectBounded(2 * kTiB);
}

TEST_F(HostileSparseTest, EncryptionHeaderAsLongAsTheFile) {
  Make(9);
  constexpr uint64_t kSize = kTiB / 2 - 1024;
  Set(32, 4, 2);
  Set(104, 4, 0x0537be77);
  Set(108, 4, 16);
  Set(112, 8, 2048);
  Set(120, 8, kSize - 2048);
  ExpectBounded(kSize);
  Restore(kSize);
  EXPECT_THAT(ThrownText<CorruptImage>([&] { DescribeImage(options(false)); }),
              HasSubstr("above 64 MiB"));
}

TEST_F(HostileSparseTest, ClustersScatteredOverTheFile) {
  Make(16);
  // Each table entry has a page of counts for itself.
  constexpr uint64_t kTables = 6;
  Set(24, 8, kTables << 29);
  Set(36, 4, kTables);
  for (uint64_t table = 0; table < kTables; ++table) {
    Set(cluster_ + table * 8, 8, kCopied | (8 + table) * cluster_);
    for (uint64_t i = 0; i < 8192; ++i) {
      Set((8 + table) * cluster_ + i * 8, 8,
          kCopied | (1 + table * 8192 + i) * 1024 * cluster_);
    }
  }
  const uint64_t size = (kTables * 8192 + 2) * 1024 * cluster_;
  ExpectBounded(size);
  Restore(size);
  EXPECT_THAT(ThrownText<Unsupported>(
                  [&] { CheckImage(options(false), Repair::kNone); }),
              HasSubstr("so scattered"));
}

// As after a guest has given nearly everything back.
TEST(ClusterCountsTest, WhatHasGapsIsCountedAsLongAsItIsNotTooMuch) {
  qcow2::ClusterCounts counts(qcow2::ClusterCounts::kMaxClusters, "disk.qcow2");
  std::vector<uint64_t> expected;
  for (uint64_t cluster = 5; cluster < counts.size(); cluster += 1 << 17) {
    counts.Add(cluster, 2, UINT32_MAX);
    expected.push_back(cluster);
  }
  std::vector<uint64_t> found;
  counts.ForEachCounted(0, counts.size(), [&](uint64_t cluster) {
    EXPECT_EQ(counts[cluster], 2U);
    found.push_back(cluster);
  });
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace pellucid
