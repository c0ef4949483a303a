#include "engine/qcow2/table_updates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/borrowed_device.h"
#include "engine/errors.h"
#include "engine/qcow2/create.h"
#include "engine/qcow2/header_fields.h"
#include "engine/qcow2/qcow2_image.h"
#include "engine/qcow2/image_check.h"
#include "engine/qcow2/snapshot_changes.h"
#include "tests/engine/cached_device.h"
#include "tests/engine/crash_device.h"
#include "tests/engine/held_flushes.h"
#include "tests/engine/host_files_fixture.h"

namespace pellucid::qcow2 {
namespace {

using ::testing::ElementsAre;

constexpr const char* kName = "disk.qcow2";
constexpr uint64_t kCluster = 4096;
constexpr uint64_t kGuestTable = kCluster / 8 * kCluster;  // What one covers.

// The file of an empty image.
Bytes EmptyFile(uint64_t size, uint64_t cluster_size = kCluster) {
  CreateOptions options;
  options.size = size;
  options.cluster_size = cluster_size;
  const EmptyImage image(options, kName);
  CrashDisks disks(Bytes(image.file_bytes()));
  image.WriteTo(*disks.Open(), [](WritableDevice&) {});
  return disks.contents()[0];
}

std::unique_ptr<Qcow2Image> OpenToWrite(std::unique_ptr<ResizableDevice> file,
                                        uint64_t l2_cache_bytes) {
  Qcow2Image::Parts parts;
  parts.file_name = kName;
  parts.header = ReadHeader(*file, kName);
  parts.snapshots = ReadSnapshots(*file, kName, parts.header);
  parts.writable_file = std::move(file);
  parts.l2_cache_bytes = l2_cache_bytes;
  return std::make_unique<Qcow2Image>(std::move(parts));
}

void ExpectSound(const CrashDisks& disks, uint64_t leaks) {
  BorrowedDisk file(disks.contents()[0]);
  const ImageCheck check = CheckImage(file, kName, ReadHeader(file, kName));
  EXPECT_TRUE(check.is_sound()) << testing::PrintToString(check.texts());
  EXPECT_EQ(check.leaks + check.leaks_behind_end, leaks);
}

// A number of the file, also while others write to it.
uint64_t WordAt(BlockDevice& file, uint64_t offset) {
  Bytes word(8);
  file.Read(offset, word);
  return LoadNumber(word, 0, 8);
}

// The tables of an image of four L1 entries, without anything that writes data.
class TableUpdatesTest : public ::testing::Test {
 protected:
  TableUpdatesTest()
      : disks_(EmptyFile(4 * kGuestTable)),
        file_(disks_.Open()),
        header_(ReadHeader(*file_, kName)),
        l1_(ReadL1Table(*file_, header_.l1_table_offset, header_.l1_size)),
        regions_(*file_, kName, header_, l1_.entries, {}),
        map_(*file_, kName, header_, l1_, 1 << 20),
        compressed_(*file_, kName, CompressionType::kZlib, kCluster),
        updates_({.file_name = kName,
                  .file = *file_,
                  .data_file = nullptr,
                  .header = header_,
                  .regions = regions_,
                  .map = map_,
                  .compressed = compressed_,
                  .users = users_,
                  .repair = nullptr,
                  .wipes_freed = false}) {}

  // What the requests of ClusterWriter do: data first, then its entry. Gives
  // the data's place.
  uint64_t Allocate(uint64_t l1_index, uint64_t index) {
    const std::lock_guard lock(updates_.mutex());
    const auto table = updates_.PinEntry(l1_index, index);
    EXPECT_TRUE(table.has_value());
    const uint64_t host = updates_.refcounts().Allocate(1).first * kCluster;
    file_->Write(host, Noise(kCluster, host));
    map_.ChangeEntry(*table, index, {.descriptor = host | kCopied});
    updates_.UnpinEntry(*table, index);
    return host;
  }
  void LetGo(uint64_t l1_index, uint64_t index, uint64_t host) {
    const std::lock_guard lock(updates_.mutex());
    const auto table = updates_.PinEntry(l1_index, index);
    ASSERT_TRUE(table.has_value());
    map_.ChangeEntry(*table, index, {});
    updates_.UnpinEntry(*table, index);
    updates_.Free({host}, kCluster, /*punch=*/true);
  }
  uint64_t CountOf(uint64_t host) {
    const std::lock_guard lock(updates_.mutex());
    return updates_.refcounts().Get(host / kCluster);
  }

  // What reached the file since event `first`, one word each.
  std::vector<std::string> Events(size_t first) const {
    std::vector<std::string> words;
    for (size_t i = first; i < disks_.events().size(); ++i) {
      words.push_back(Describe(disks_.events()[i]));
    }
    return words;
  }
  std::string Describe(const DiskEvent& event) const {
    if (event.kind == DiskEvent::Kind::kFlush) return "barrier";
    if (event.kind == DiskEvent::Kind::kZeroes) return "hole";
    const Bytes& file = disks_.contents()[0];
    const uint64_t block = LoadNumber(file, header_.refcount_table_offset, 8);
    const auto within = [&](uint64_t begin, uint64_t length) {
      return event.offset >= begin && event.offset < begin + length;
    };
    if (within(block, kCluster)) return "refcounts";
    if (within(header_.l1_table_offset, header_.l1_size * 8)) return "L1";
    for (uint64_t i = 0; i < map_.l1_size(); ++i) {
      if (within(map_.L2TableOf(i), kCluster) && map_.L2TableOf(i) != 0) {
        return "L2";
      }
    }
    return "data";
  }

  CrashDisks disks_;
  const std::unique_ptr<ResizableDevice> file_;
  const Header header_;
  const L1Table l1_;
  MetadataRegions regions_;
  ClusterMap map_;
  CompressedClusters compressed_;
  MappingUsers users_;
  TableUpdates updates_;
};

TEST_F(TableUpdatesTest, EachTableWaitsForWhatItRefersTo) {
  Allocate(0, 5);
  Allocate(0, 6);
  updates_.Flush();
  // An empty table, to which nothing refers; then the five steps.
  EXPECT_THAT(Events(0),
              ElementsAre("L2", "data", "data", "refcounts", "barrier", "L2",
                          "barrier", "L1", "barrier"));
  const size_t second = disks_.position();
  Allocate(0, 7);
  updates_.Flush();
  EXPECT_THAT(Events(second),
              ElementsAre("data", "refcounts", "barrier", "L2", "barrier"));
  const size_t third = disks_.position();
  updates_.Flush();
  EXPECT_THAT(Events(third), ElementsAre("barrier"))
      << "of data that was overwritten in place";
  ExpectSound(disks_, 0);
}

TEST_F(TableUpdatesTest, NeighbouringTablesGoDownTogether) {
  // Allocated one behind the other: four tables in four clusters.
  for (uint64_t i = 0; i < 4; ++i) {
    const std::lock_guard lock(updates_.mutex());
    ASSERT_TRUE(updates_.PinEntry(i, 0).has_value());
  }
  for (uint64_t i = 0; i < 4; ++i) {
    const std::lock_guard lock(updates_.mutex());
    updates_.UnpinEntry({map_.L2TableOf(i)}, 0);
    EXPECT_EQ(map_.L2TableOf(i), map_.L2TableOf(0) + i * kCluster);
  }
  for (uint64_t i = 0; i < 4; ++i) Allocate(i, 0);
  const size_t first = disks_.position();
  updates_.Flush();
  EXPECT_THAT(Events(first),
              ElementsAre("refcounts", "barrier", "L2", "barrier", "L1", "L1",
                          "L1", "L1", "barrier"));
  ExpectSound(disks_, 0);
}

TEST_F(TableUpdatesTest, FreedClusterIsFreeOnlyBehindTheLastBarrier) {
  const uint64_t host = Allocate(0, 5);
  updates_.Flush();
  LetGo(0, 5, host);
  EXPECT_EQ(CountOf(host), 1U);
  EXPECT_NE(Allocate(0, 6), host);
  for (uint64_t n = 0; n < 4; ++n) {
    SCOPED_TRACE(testing::Message() << "change " << n << " fails");
    disks_.FailChanges(n, 1, EIO);
    EXPECT_THROW(updates_.Flush(), IoError);
    EXPECT_EQ(disks_.StopFailing(), 1U);
    EXPECT_EQ(CountOf(host), 1U) << "the file may refer to it";
  }
  const size_t begin = disks_.position();
  updates_.Flush();
  EXPECT_THAT(Events(begin), ElementsAre("refcounts", "barrier", "L2",
                                         "barrier", "hole", "refcounts"));
  EXPECT_EQ(CountOf(host), 0U);
  EXPECT_EQ(Allocate(0, 7), host);
  updates_.Flush();
  ExpectSound(disks_, 0);
}

// One flush is under way while many others are asked for. Gives how many
// barriers it took in all.
uint64_t BarriersOfFlushesAtOnce(uint64_t callers) {
  CrashDisks disks(EmptyFile(4 * kGuestTable));
  const auto disk = disks.Open();
  auto held = std::make_unique<HeldFlushes<BorrowedDevice>>(*disk);
  HeldFlushes<BorrowedDevice>& file = *held;
  const auto image = OpenToWrite(std::move(held), 1 << 20);
  std::atomic<uint64_t> coming = 0;
  const auto write_and_flush = [&](uint64_t number) {
    image->Write(number * kCluster, Noise(kCluster, number));
    ++coming;
    image->Flush();
    // It is in the file, and the tables say so.
    const uint64_t l1_table = WordAt(*disk, kL1TableOffset.byte);
    const uint64_t l2_table = WordAt(*disk, l1_table) & kOffsetMask;
    EXPECT_NE(WordAt(*disk, l2_table + number * 8), 0U) << number;
  };
  auto first = std::async(std::launch::async, write_and_flush, 0);
  EXPECT_TRUE(file.AwaitBegun(1));
  std::vector<std::future<void>> others;
  for (uint64_t i = 1; i <= callers; ++i) {
    others.push_back(std::async(std::launch::async, write_and_flush, i));
  }
  EXPECT_TRUE(Eventually([&] { return coming == callers + 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(file.begun(), 1U) << "one flush at a time";
  file.LetThrough(UINT64_MAX);
  first.get();
  for (auto& other : others) other.get();
  ExpectSound(disks, 0);
  return file.begun();
}

TEST(TableUpdatesConcurrentTest, FlushesAtOnceShareOne) {
  // Data and refcounts, L2 table, and for the first the L1 entry.
  constexpr uint64_t kShared = 3 + 2;
  uint64_t barriers = 0;
  // All of them come in time, unless the machine stands still: then again.
  for (int attempt = 0; attempt < 10 && barriers != kShared; ++attempt) {
    barriers = BarriersOfFlushesAtOnce(8);
  }
  EXPECT_EQ(barriers, kShared);
}

size_t Barriers(const CrashDisks& disks) {
  return static_cast<size_t>(std::ranges::count(
      disks.events(), DiskEvent::Kind::kFlush, &DiskEvent::kind));
}

// One L2 table of 16 slices. A cache of that size would be half full of changes
// soon, and then each new slice would cost a flush.
TEST(SmallL2CacheTest, SmallImageIsNotFlushedBeforeAnybodyAsks) {
  constexpr uint64_t kLarge = 64 << 10;
  constexpr uint64_t kSlice = 4096 / 8 * kLarge;
  CrashDisks disks(EmptyFile(16 * kSlice, kLarge));
  const auto image = OpenToWrite(disks.Open(), 8 << 20);
  for (uint64_t i = 0; i < 16; ++i) image->Write(i * kSlice, Noise(512, i));
  EXPECT_EQ(Barriers(disks), 0U);
  image->Flush();
  ExpectSound(disks, 0);
}

// Eight slices fit, and each thread needs one of its own.
TEST(SmallL2CacheTest, ThreadsThatNeedMoreTablesThanFitGetOn) {
  constexpr uint64_t kThreads = 12;
  constexpr uint64_t kRounds = 40;
  CrashDisks disks(EmptyFile(kThreads * kGuestTable));
  const auto image = OpenToWrite(disks.Open(), 0);
  {
    std::vector<std::jthread> threads;
    for (uint64_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        for (uint64_t i = 0; i < kRounds; ++i) {
          image->Write(thread * kGuestTable + i * kCluster,
                       Noise(512, thread * kRounds + i));
        }
      });
    }
  }
  for (uint64_t i = 0; i < kThreads * kRounds; ++i) {
    Bytes found(512);
    image->Read(i / kRounds * kGuestTable + i % kRounds * kCluster, found);
    EXPECT_EQ(found, Noise(512, i)) << i;
  }
  image->Flush();
  ExpectSound(disks, 0);
}

// A host that cannot punch holes, and says so by an error.
class NoHoles : public BorrowedDevice {
 public:
  explicit NoHoles(ResizableDevice& device) : BorrowedDevice(device) {}

  uint64_t refusals() const { return refusals_; }

  void WriteZeroes(uint64_t offset, uint64_t length, ZeroMode mode) override {
    if (mode == ZeroMode::kFreeSpace) {
      ++refusals_;
      throw IoError(EIO, "disk: cannot punch holes");
    }
    BorrowedDevice::WriteZeroes(offset, length, mode);
  }
  void FreeSpace(uint64_t offset, uint64_t length) noexcept override {
    ResizableDevice::FreeSpace(offset, length);
  }

 private:
  uint64_t refusals_ = 0;
};

TEST(FreeSpaceTest, FlushSucceedsWhereNoHolesCanBePunched) {
  CrashDisks disks(EmptyFile(kGuestTable));
  const auto disk = disks.Open();
  auto made = std::make_unique<NoHoles>(*disk);
  const NoHoles& file = *made;
  const auto image = OpenToWrite(std::move(made), 1 << 20);
  image->Write(0, Noise(8 * kCluster, 1));
  image->Flush();
  const uint64_t size = disks.contents()[0].size();
  image->WriteZeroes(0, 8 * kCluster, ZeroMode::kFreeSpace);
  EXPECT_NO_THROW(image->Flush());
  EXPECT_EQ(file.refusals(), 1U);
  ExpectSound(disks, 0);
  // They are free all the same, and new clusters have nothing of the old.
  image->Write(100 * kCluster, Noise(100, 2));
  image->Write(101 * kCluster, Noise(7 * kCluster, 3));
  image->Flush();
  EXPECT_EQ(disks.contents()[0].size(), size);
  Bytes found(kCluster);
  image->Read(100 * kCluster, found);
  Bytes expected = Noise(100, 2);
  expected.resize(kCluster);
  EXPECT_EQ(found, expected);
  ExpectSound(disks, 0);
}

TEST(FreeSpaceTest, SnapshotIsDeletedWhereNoHolesCanBePunched) {
  CrashDisks disks(EmptyFile(kGuestTable));
  const auto disk = disks.Open();
  NoHoles file(*disk);
  const auto write = [&](uint64_t seed) {
    const auto image = OpenToWrite(disks.Open(), 1 << 20);
    image->Write(0, Noise(8 * kCluster, seed));
    image->Flush();
  };
  write(1);
  CreateSnapshot(file, kName, {.name = "s"});
  write(2);
  const uint64_t before = file.refusals();
  EXPECT_NO_THROW(DeleteSnapshot(file, kName, "s"));
  EXPECT_GT(file.refusals(), before);
  EXPECT_TRUE(ReadSnapshots(file, kName, ReadHeader(file, kName)).empty());
  ExpectSound(disks, 0);
}

// The file of an image that is resized is lent to the image.
TEST(FreeSpaceTest, LentDeviceIsAskedItself) {
  class Asked : public NoHoles {
   public:
    using NoHoles::NoHoles;
    bool can_resize() const override { return false; }
    void FreeSpace(uint64_t offset, uint64_t length) noexcept override {
      range = {offset, length};
    }
    std::pair<uint64_t, uint64_t> range;
  };
  CrashDisks disks{Bytes(kCluster)};
  const auto disk = disks.Open();
  Asked asked(*disk);
  BorrowedDevice lent(static_cast<ResizableDevice&>(asked));
  lent.FreeSpace(512, 1024);
  EXPECT_EQ(asked.range, std::pair(uint64_t{512}, uint64_t{1024}));
  EXPECT_EQ(asked.refusals(), 0U);
  EXPECT_FALSE(lent.can_resize());
}

}  // namespace
}  // namespace pellucid::qcow2
