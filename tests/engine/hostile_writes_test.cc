// Images whose tables call the image's own metadata guest data: changing that
// data would destroy the image, so the change is refused and nothing happens.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/qcow2/snapshot_changes.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/thrown_text.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kOffset = 0x00ff'ffff'ffff'fe00;
constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint64_t kZero = 1;
constexpr uint64_t kCluster = 4096;

class HostileWritesTest : public ::testing::Test {
 protected:
  HostileWritesTest() {
    images_.Create({.name = "disk.qcow2",
                    .encryption = "none",
                    .cluster_size = kCluster,
                    .virtual_size = 8 << 20,
                    .more_options = {},
                    .backing = ""});
    images_.Write("disk.qcow2", {"write -q -P 7 0 50k"});
    good_ = ReadHostFile(images_.path("disk.qcow2"));
    l1_ = LoadNumber(good_, 40, 8);
    l2_ = LoadNumber(good_, l1_, 8) & kOffset;
    refcount_table_ = LoadNumber(good_, 48, 8);
    refcount_block_ = LoadNumber(good_, refcount_table_, 8);
  }

  // The image with `entry` as the first L2 entry.
  void SetEntry(uint64_t entry) {
    Bytes image = good_;
    StoreNumber(image, l2_, 8, entry);
    WriteHostFile(images_.path("disk.qcow2"), image);
  }

  // Whoever needs a cluster of `image_bytes` finds one that is a table, and no
  // byte changes.
  void ExpectNoAllocation(const Bytes& image_bytes) {
    WriteHostFile(images_.path("disk.qcow2"), image_bytes);
    const ImageInMemory image(images_, "disk.qcow2");
    CrashDisks disks(image.files());
    const auto disk = image.Open(disks);
    EXPECT_THAT(ThrownText<CorruptImage>(
                    [&] { disk->Write(600 << 10, Noise(kCluster, 1)); }),
                HasSubstr("refcount says that it is free"));
    disk->Flush();
    EXPECT_EQ(disks.contents(), image.files());
  }

  // Each change of the first cluster is refused, also when it is flushed and
  // something else is written afterwards; what is at `metadata` stays.
  void ExpectRefused(uint64_t metadata) {
    const ImageInMemory image(images_, "disk.qcow2");
    const std::vector<std::function<void(WritableDevice&)>> changes = {
        [](WritableDevice& disk) { disk.Write(0, Noise(kCluster, 1)); },
        [](WritableDevice& disk) { disk.Write(100, Noise(300, 1)); },
        [](WritableDevice& disk) {
          disk.WriteZeroes(0, kCluster, ZeroMode::kFreeSpace);
        },
        [](WritableDevice& disk) {
          disk.WriteZeroes(0, kCluster, ZeroMode::kKeepSpace);
        }};
    for (size_t i = 0; i < changes.size(); ++i) {
      SCOPED_TRACE(i);
      CrashDisks disks(image.files());
      const auto disk = image.Open(disks);
      EXPECT_THROW(changes[i](*disk), CorruptImage);
      disk->Flush();
      EXPECT_EQ(disks.contents(), image.files());
      // Nothing of it has become free.
      disk->Write(600 << 10, Noise(200 << 10, 2));
      disk->Flush();
      const Bytes& now = disks.contents()[0];
      const auto same = [&](uint64_t begin, uint64_t length) {
        const auto at = static_cast<ptrdiff_t>(begin);
        return std::equal(now.begin() + at,
                          now.begin() + at + static_cast<ptrdiff_t>(length),
                          image.files()[0].begin() + at);
      };
      EXPECT_TRUE(same(0, 512));
      // The first entries of tables stay what they were.
      EXPECT_TRUE(same(metadata, metadata == refcount_block_ ? 2 : 8));
    }
  }

  QemuImages images_;
  Bytes good_;
  uint64_t l1_ = 0;
  uint64_t l2_ = 0;
  uint64_t refcount_table_ = 0;
  uint64_t refcount_block_ = 0;
};

TEST_F(HostileWritesTest, EntryThatRefersToATable) {
  for (const uint64_t table : {l1_, l2_, refcount_table_, refcount_block_}) {
    for (const uint64_t flags : {kCopied, uint64_t{0}}) {
      SCOPED_TRACE(fmt::format("{:#x} with {:#x}", table, flags));
      SetEntry(table | flags);
      ExpectRefused(table);
    }
  }
}

TEST_F(HostileWritesTest, CompressedEntryThatRefersToTheHeaderOrATable) {
  for (const uint64_t place : {uint64_t{0}, uint64_t{512}, l1_, l2_}) {
    SCOPED_TRACE(place);
    SetEntry(kCompressed | place);
    ExpectRefused(place);
  }
}

TEST_F(HostileWritesTest, ZeroClusterWhosePlaceIsATable) {
  for (const uint64_t flags : {kCopied | kZero, kZero}) {
    SetEntry(refcount_block_ | flags);
    const ImageInMemory image(images_, "disk.qcow2");
    CrashDisks disks(image.files());
    const auto disk = image.Open(disks);
    EXPECT_THAT(ThrownText<CorruptImage>([&] { disk->Write(5, Noise(9, 1)); }),
                HasSubstr("own tables"));
    EXPECT_THROW(disk->WriteZeroes(0, kCluster, ZeroMode::kFreeSpace),
                 CorruptImage);
    disk->Flush();
    EXPECT_EQ(disks.contents(), image.files());
  }
}

TEST_F(HostileWritesTest, ZeroClusterWhosePlaceIsNotAtACluster) {
  const uint64_t data = LoadNumber(good_, l2_ + 8, 8) & kOffset;
  for (const uint64_t flags : {kCopied | kZero, kZero}) {
    SetEntry((data + 512) | flags);
    const ImageInMemory image(images_, "disk.qcow2");
    CrashDisks disks(image.files());
    const auto disk = image.Open(disks);
    EXPECT_THAT(ThrownText<CorruptImage>([&] { disk->Write(5, Noise(9, 1)); }),
                HasSubstr("not at a multiple of the 4096-byte cluster"));
    EXPECT_THROW(disk->WriteZeroes(0, kCluster, ZeroMode::kFreeSpace),
                 CorruptImage);
    disk->Flush();
    EXPECT_EQ(disks.contents(), image.files());
  }
}

TEST_F(HostileWritesTest, EntryThatRefersBehindTheFile) {
  const uint64_t end = (good_.size() + kCluster - 1) / kCluster * kCluster;
  for (const uint64_t place : {end, uint64_t{1} << 55}) {
    for (const uint64_t flags : {kCopied, kCopied | kZero}) {
      SCOPED_TRACE(fmt::format("{:#x} with {:#x}", place, flags));
      SetEntry(place | flags);
      const ImageInMemory image(images_, "disk.qcow2");
      CrashDisks disks(image.files());
      const auto disk = image.Open(disks);
      EXPECT_THAT(
          ThrownText<CorruptImage>([&] { disk->Write(5, Noise(9, 1)); }),
          HasSubstr("behind the"));
      disk->Flush();
      EXPECT_EQ(disks.contents(), image.files());
    }
  }
}

// The refcounts call every cluster free.
TEST_F(HostileWritesTest, FreeClusterThatIsATable) {
  Bytes image_bytes = good_;
  for (uint64_t at = 0; at < kCluster; ++at) {
    image_bytes[refcount_block_ + at] = std::byte{0};
  }
  ExpectNoAllocation(image_bytes);
}

// The guest's first cluster is counted as free and becomes a table then, which
// writing it would destroy.
TEST_F(HostileWritesTest, EntryThatRefersToWhatHasBecomeATable) {
  uint64_t free = 0;
  while (LoadNumber(good_, refcount_block_ + free * 2, 2) != 0) ++free;
  const uint64_t table = free * kCluster;
  for (const uint64_t flags : {kCopied, kZero, kCopied | kZero}) {
    SCOPED_TRACE(flags);
    SetEntry(table | flags);
    const ImageInMemory image(images_, "disk.qcow2");
    CrashDisks disks(image.files());
    const auto disk = image.Open(disks);
    disk->Write(4 << 20, Noise(kCluster, 2));
    disk->Flush();
    const std::vector<Bytes> files = disks.contents();
    ASSERT_EQ(LoadNumber(files[0], l1_ + 16, 8), table | kCopied);
    EXPECT_THROW(disk->Write(0, Noise(kCluster, 1)), CorruptImage);
    EXPECT_THROW(disk->WriteZeroes(0, kCluster, ZeroMode::kFreeSpace),
                 CorruptImage);
    disk->Flush();
    EXPECT_EQ(disks.contents(), files);
  }
}

// With a snapshot that has an L2 table of its own and shares another one with
// the active state.
class HostileSnapshotWritesTest : public HostileWritesTest {
 protected:
  HostileSnapshotWritesTest() {
    images_.Write("disk.qcow2", {"write -q -P 8 2M 50k"});
    TakeSnapshot(images_, "disk.qcow2", "friday");
    images_.Write("disk.qcow2", {"write -q -P 9 0 50k"});
    good_ = ReadHostFile(images_.path("disk.qcow2"));
    l1_ = LoadNumber(good_, 40, 8);
    l2_ = LoadNumber(good_, l1_, 8) & kOffset;
    const uint64_t snapshot_l1 = LoadNumber(good_, LoadNumber(good_, 64, 8), 8);
    snapshot_l2_ = LoadNumber(good_, snapshot_l1, 8) & kOffset;
    shared_l2_ = LoadNumber(good_, snapshot_l1 + 8, 8) & kOffset;
  }

  void SetRefcount(uint64_t offset, uint64_t count) {
    StoreNumber(good_, refcount_block_ + offset / kCluster * 2, 2, count);
  }

  uint64_t snapshot_l2_ = 0;
  uint64_t shared_l2_ = 0;
};

TEST_F(HostileSnapshotWritesTest, EntryThatRefersToATableOfTheSnapshot) {
  ASSERT_NE(snapshot_l2_, l2_);
  ASSERT_EQ(shared_l2_, LoadNumber(good_, l1_ + 8, 8));
  for (const uint64_t table : {snapshot_l2_, shared_l2_}) {
    for (const uint64_t flags :
         {kCopied, uint64_t{0}, kCopied | kZero, kZero}) {
      SCOPED_TRACE(fmt::format("{:#x} with {:#x}", table, flags));
      SetEntry(table | flags);
      const ImageInMemory image(images_, "disk.qcow2");
      CrashDisks disks(image.files());
      const auto disk = image.Open(disks);
      EXPECT_THROW(disk->Write(0, Noise(kCluster, 1)), CorruptImage);
      EXPECT_THROW(disk->Write(5, Noise(9, 1)), CorruptImage);
      EXPECT_THROW(disk->WriteZeroes(0, kCluster, ZeroMode::kFreeSpace),
                   CorruptImage);
      disk->Flush();
      EXPECT_EQ(disks.contents(), image.files());
    }
  }
}

TEST_F(HostileSnapshotWritesTest, FreeClusterThatIsATableOfTheSnapshot) {
  SetRefcount(snapshot_l2_, 0);
  ExpectNoAllocation(good_);
}

// Its refcount forgets the snapshot, so that the copy for the active state
// would leave the table free.
TEST_F(HostileSnapshotWritesTest, SharedTableIsNotGivenAway) {
  SetRefcount(shared_l2_, 1);
  WriteHostFile(images_.path("disk.qcow2"), good_);
  const ImageInMemory image(images_, "disk.qcow2");
  CrashDisks disks(image.files());
  const Bytes friday = image.Content(disks.contents(), "friday");
  const auto disk = image.Open(disks);
  disk->Write(2 << 20, Noise(kCluster, 1));
  disk->Flush();
  EXPECT_THROW(
      {
        for (uint64_t at = 4 << 20; at < 8 << 20; at += kCluster) {
          disk->Write(at, Noise(kCluster, 2));
          disk->Flush();
        }
      },
      CorruptImage);
  EXPECT_EQ(FirstDifference(image.Content(disks.contents(), "friday"), friday),
            "");
}

TEST_F(HostileSnapshotWritesTest, SharedTableThatIsCalledTheActiveStatesOwn) {
  StoreNumber(good_, l1_ + 8, 8, shared_l2_ | kCopied);
  WriteHostFile(images_.path("disk.qcow2"), good_);
  const ImageInMemory image(images_, "disk.qcow2");
  CrashDisks disks(image.files());
  const auto disk = image.Open(disks);
  EXPECT_THAT(ThrownText<CorruptImage>(
                  [&] { disk->Write(2 << 20, Noise(kCluster, 1)); }),
              HasSubstr("a snapshot refers to its L2 table"));
  disk->Flush();
  EXPECT_EQ(disks.contents(), image.files());
  // Elsewhere all is well.
  disk->Write(0, Noise(kCluster, 1));
  disk->Flush();
}

// Two of the tables in one place would destroy each other.
TEST_F(HostileWritesTest, OverlappingTablesAreRefusedAtOpening) {
  Bytes image = good_;
  StoreNumber(image, l1_, 8, refcount_block_ | kCopied);
  WriteHostFile(images_.path("disk.qcow2"), image);
  OpenOptions options = images_.options("disk.qcow2");
  options.writable = true;
  KnownPassphrases passphrases;
  EXPECT_THAT(
      ThrownText<CorruptImage>([&] { OpenImage(options, passphrases); }),
      HasSubstr("overlap"));
  EXPECT_EQ(ReadHostFile(images_.path("disk.qcow2")), image);
}

// What is written to the disk, or done to its snapshots, could land on whatever
// the snapshot calls its table.
TEST_F(HostileWritesTest, SnapshotWhoseL1TableIsElsewhereIsRefusedAtOpening) {
  TakeSnapshot(images_, "disk.qcow2", "s");
  good_ = ReadHostFile(images_.path("disk.qcow2"));
  const uint64_t entry = LoadNumber(good_, 64, 8);
  const uint64_t own = LoadNumber(good_, entry, 8);
  struct Damage {
    uint64_t offset;
    uint64_t entries;
    const char* text;
  };
  for (const Damage& damage : std::vector<Damage>{
           {0, 1, "l1_table_offset"},
           {own + 512, 1, "l1_table_offset"},
           {good_.size() / kCluster * kCluster + kCluster, 1, "file"},
           {uint64_t{1} << 40, 1, "file"},
           {~(kCluster - 1), 1, "file"},
           {own, (32U << 20) / 8 + 1, "l1_size"},
           {own, 0xffffffff, "l1_size"},
           {entry / kCluster * kCluster, 1, "overlap"},
           {l1_, 1, "overlap"},
           {l2_, 1, "overlap"},
           {refcount_table_, 1, "overlap"},
           {refcount_block_, 1, "overlap"}}) {
    SCOPED_TRACE(
        fmt::format("{:#x}, {} entries", damage.offset, damage.entries));
    Bytes bytes = good_;
    StoreNumber(bytes, entry, 8, damage.offset);
    StoreNumber(bytes, entry + 8, 4, damage.entries);
    WriteHostFile(images_.path("disk.qcow2"), bytes);
    const ImageInMemory image(images_, "disk.qcow2");
    CrashDisks disks(image.files());
    EXPECT_THAT(ThrownText<CorruptImage>([&] { image.Open(disks); }),
                HasSubstr(damage.text));
    EXPECT_THROW(
        qcow2::CreateSnapshot(*disks.Open(), "disk.qcow2", {.name = "t"}),
        CorruptImage);
    EXPECT_THROW(qcow2::DeleteSnapshot(*disks.Open(), "disk.qcow2", "s"),
                 CorruptImage);
    EXPECT_THROW(qcow2::ApplySnapshot(*disks.Open(), "disk.qcow2", "s"),
                 CorruptImage);
    EXPECT_EQ(disks.changes(), 0U);
  }
}

// Beside the subcluster that is written there are others of which the bitmap
// says what cannot be: with a new cluster they would show what it held before.
class HostileSubclustersTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kLargeCluster = 16384;
  static constexpr uint64_t kSubcluster = kLargeCluster / 32;
  static constexpr uint64_t kFifth = uint64_t{1} << 5;

  HostileSubclustersTest() {
    images_.Create({.name = "disk.qcow2",
                    .encryption = "none",
                    .cluster_size = kLargeCluster,
                    .virtual_size = 1 << 20,
                    .extended_l2 = true,
                    .more_options = {},
                    .backing = ""});
    images_.Write("disk.qcow2", {"write -q -P 7 0 50k"});
    good_ = ReadHostFile(images_.path("disk.qcow2"));
    l2_ = LoadNumber(good_, LoadNumber(good_, 40, 8), 8) & kOffset;
    data_ = LoadNumber(good_, l2_, 8) & kOffset;
  }

  void ExpectRefused(uint64_t descriptor, uint64_t bitmap) {
    SCOPED_TRACE(fmt::format("{:#x} with {:#x}", descriptor, bitmap));
    Bytes bytes = good_;
    StoreNumber(bytes, l2_, 8, descriptor);
    StoreNumber(bytes, l2_ + 8, 8, bitmap);
    WriteHostFile(images_.path("disk.qcow2"), bytes);
    const ImageInMemory image(images_, "disk.qcow2");
    const std::vector<std::function<void(WritableDevice&)>> changes = {
        [](WritableDevice& disk) { disk.Write(0, Noise(kSubcluster, 1)); },
        [](WritableDevice& disk) { disk.Write(700, Noise(100, 1)); },
        [](WritableDevice& disk) {
          disk.Write(31 * kSubcluster, Noise(kLargeCluster, 1));
        },
        [](WritableDevice& disk) {
          disk.WriteZeroes(0, kLargeCluster, ZeroMode::kFreeSpace);
        },
        [](WritableDevice& disk) {
          disk.WriteZeroes(0, kLargeCluster, ZeroMode::kKeepSpace);
        }};
    for (size_t i = 0; i < changes.size(); ++i) {
      SCOPED_TRACE(i);
      CrashDisks disks(image.files());
      const auto disk = image.Open(disks);
      EXPECT_THAT(ThrownText<CorruptImage>([&] { changes[i](*disk); }),
                  HasSubstr("bitmap"));
      disk->Flush();
      EXPECT_EQ(disks.contents(), image.files());
    }
  }

  QemuImages images_;
  Bytes good_;
  uint64_t l2_ = 0;
  uint64_t data_ = 0;  // Of the first cluster.
};

TEST_F(HostileSubclustersTest, AllocatedWithoutAClusterAreRefused) {
  ExpectRefused(0, kFifth);
}

TEST_F(HostileSubclustersTest, AllocatedAndZeroAreRefused) {
  ExpectRefused(0, kFifth | kFifth << 32);
  ExpectRefused(data_, kFifth | kFifth << 32);  // Not its own: to be copied.
}

}  // namespace
}  // namespace pellucid
