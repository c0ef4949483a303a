// Requests to a qcow2 image that are slow, and what others do meanwhile.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "crypto/sector_cipher.h"
#include "engine/qcow2/cluster_data.h"
#include "engine/qcow2/mapping_users.h"
#include "engine/qcow2/qcow2_image.h"
#include "engine/range_locks.h"
#include "tests/engine/gated_device.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid::qcow2 {
namespace {

constexpr uint64_t kCluster = 4096;
// Long enough for what must not happen meanwhile to happen.
constexpr std::chrono::milliseconds kWhile{100};

template <typename Result>
bool IsReady(const std::future<Result>& future) {
  return future.wait_for(kWhile) == std::future_status::ready;
}

class OvertakenRequestsTest : public ::testing::Test {
 protected:
  OvertakenRequestsTest() {
    images_.Create({.name = "disk.qcow2",
                    .encryption = "none",
                    .cluster_size = kCluster,
                    .virtual_size = 1 << 20,
                    .more_options = {},
                    .backing = ""});
    images_.Write("disk.qcow2", {"write -q -P 7 0 40k"});
    disks_ =
        std::make_unique<CrashDisks>(ReadHostFile(images_.path("disk.qcow2")));
    auto gate = std::make_unique<GatedDevice>(disks_->Open());
    gate_ = gate.get();
    Qcow2Image::Parts parts;
    parts.file_name = "disk.qcow2";
    parts.header = ReadHeader(*gate, parts.file_name);
    parts.writable_file = std::move(gate);
    parts.l2_cache_bytes = 32 << 10;
    image_ = std::make_unique<Qcow2Image>(std::move(parts));
    const Bytes& file = disks_->initial()[0];
    const uint64_t l1 = LoadNumber(file, 40, 8);
    l2_ = LoadNumber(file, l1, 8) & 0x00ff'ffff'ffff'fe00;
    host_ = LoadNumber(file, l2_, 8) & 0x00ff'ffff'ffff'fe00;
  }

  Bytes Read(uint64_t offset, uint64_t length) {
    Bytes out(length);
    image_->Read(offset, out);
    return out;
  }

  Bytes Host(uint64_t offset, uint64_t length) const {
    const auto at = disks_->contents()[0].begin();
    return {at + static_cast<ptrdiff_t>(offset),
            at + static_cast<ptrdiff_t>(offset + length)};
  }

  QemuImages images_;
  std::unique_ptr<CrashDisks> disks_;
  GatedDevice* gate_ = nullptr;  // Of image_.
  std::unique_ptr<Qcow2Image> image_;
  uint64_t l2_ = 0;
  uint64_t host_ = 0;  // Of the first cluster.
};

TEST_F(OvertakenRequestsTest, FreedClusterIsNotReusedWhileAReaderIsInside) {
  gate_->StopAt(GatedDevice::Kind::kRead, host_);
  auto reader = std::async(std::launch::async, [&] { return Read(0, 4096); });
  gate_->AwaitStopped();
  image_->WriteZeroes(0, kCluster, ZeroMode::kFreeSpace);
  auto flush = std::async(std::launch::async, [&] { image_->Flush(); });
  EXPECT_FALSE(IsReady(flush)) << "the cluster was given back already";
  for (uint64_t at = 100 << 10; at < 400 << 10; at += kCluster) {
    image_->Write(at, Bytes(kCluster, std::byte{9}));
  }
  EXPECT_EQ(Host(host_, kCluster), Bytes(kCluster, std::byte{7}));
  gate_->LetThrough();
  EXPECT_EQ(reader.get(), Bytes(kCluster, std::byte{7}));
  flush.get();
  // Now it is used again.
  image_->Write(500 << 10, Bytes(kCluster, std::byte{8}));
  EXPECT_EQ(Host(host_, kCluster), Bytes(kCluster, std::byte{8}));
}

TEST_F(OvertakenRequestsTest, TwoWritersOfOneFreshClusterKeepBothParts) {
  const uint64_t guest = 200 << 10;
  // The first stops while it writes to the place that it has got.
  const uint64_t end = disks_->contents()[0].size() / kCluster * kCluster;
  gate_->StopAt(GatedDevice::Kind::kWrite, end);
  auto first = std::async(std::launch::async, [&] {
    image_->Write(guest, Bytes(700, std::byte{1}));
  });
  gate_->AwaitStopped();
  auto second = std::async(std::launch::async, [&] {
    image_->Write(guest + 700, Bytes(700, std::byte{2}));
  });
  EXPECT_FALSE(IsReady(second));
  gate_->LetThrough();
  first.get();
  second.get();
  Bytes expected(kCluster);
  std::fill_n(expected.begin(), 700, std::byte{1});
  std::fill_n(expected.begin() + 700, 700, std::byte{2});
  EXPECT_EQ(Read(guest, kCluster), expected);
}

// An L2 slice that is being read while somebody changes and writes it.
TEST(OvertakenSliceTest, SliceThatWasReadBeforeAChangeIsReadAgain) {
  CrashDisks disks(Bytes(64 << 10));
  GatedDevice gate(disks.Open());
  // Stopped behind its look at the cache; the words that it gets are old.
  class OldWords : public BlockDevice {
   public:
    explicit OldWords(GatedDevice& gate) : gate_(gate) {}
    uint64_t size() const override { return gate_.size(); }
    void Read(uint64_t offset, std::span<std::byte> out) override {
      Bytes old(out.size());
      const bool is_first = first_.exchange(false);
      if (is_first) {
        gate_.StopAt(GatedDevice::Kind::kRead, offset);
        gate_.Read(offset, old);
        std::ranges::fill(out, std::byte{0});
        return;
      }
      gate_.Read(offset, out);
    }
    Extent ExtentAt(uint64_t offset, uint64_t length) override {
      return gate_.ExtentAt(offset, length);
    }

   private:
    GatedDevice& gate_;
    std::atomic<bool> first_ = true;
  } file(gate);
  L2Cache slow(file, 4096, 32 << 10);
  auto reader = std::async(std::launch::async, [&] {
    uint64_t word = 0;
    slow.Read({4096}, {&word, 1});
    return word;
  });
  gate.AwaitStopped();
  ASSERT_TRUE(slow.Pin({4096}));
  const uint64_t changed = 0x1234;
  slow.Change({4096}, {&changed, 1});
  slow.Unpin({4096});
  const auto slices = slow.TakeChanges();
  ASSERT_EQ(slices.size(), 1U);
  gate.Write(slices[0].offset.value, slices[0].bytes);
  slow.ChangesWritten(slices);
  // Pushed out by slices of the same set.
  int pinned = 0;
  for (uint64_t at = 0; at < 64 << 10; at += 4096) {
    if (at != 4096 && slow.Pin({at})) ++pinned;
  }
  EXPECT_EQ(pinned, 8);
  gate.LetThrough();
  EXPECT_EQ(reader.get(), changed);
}

// A writer that found a place in use is slow; meanwhile the cluster is zeroed,
// keeps its place, and is written anew. The slow writer changes a part of a
// sector, whose other bytes it has read before.
TEST(OvertakenCiphertextTest, SlowCutWriteDoesNotUndoASector) {
  CrashDisks disks(Bytes(64 << 10, std::byte{5}));
  GatedDevice gate(disks.Open());
  const Bytes key = Noise(32, 3);
  ClusterData data(
      gate, &gate,
      crypto::MakeSectorCipher(
          {.cipher = "aes", .mode = "xts", .iv = "plain64", .iv_hash = ""},
          key),
      /*tweak_is_guest=*/false);
  data.Write({0}, {0}, Bytes(kCluster, std::byte{1}));
  gate.StopAt(GatedDevice::Kind::kWrite, 0);
  auto slow = std::async(std::launch::async, [&] {
    data.Write({10}, {10}, Bytes(20, std::byte{2}));
  });
  gate.AwaitStopped();
  auto fast = std::async(std::launch::async, [&] {
    data.WriteWithRim(
        {512 - 100}, {512 - 100}, Bytes(100, std::byte{3}), 512 - 100, 0,
        [](GuestOffset, std::span<std::byte> out) {
          std::ranges::fill(out, std::byte{0});
        },
        ClusterData::Access::kShared);
  });
  EXPECT_FALSE(IsReady(fast));
  gate.LetThrough();
  slow.get();
  fast.get();
  Bytes found(512);
  data.Read({0}, {0}, found);
  EXPECT_EQ(Bytes(found.end() - 100, found.end()), Bytes(100, std::byte{3}));
  EXPECT_EQ(Bytes(found.begin() + 100, found.end() - 100),
            Bytes(312, std::byte{0}));
}

TEST(MappingUsersTest, WaitsForThoseInsideAndNotForThoseWhoComeLater) {
  MappingUsers users;
  users.AwaitThoseInside();  // Nobody.
  auto first = std::make_unique<MappingUsers::Section>(users);
  auto waiting =
      std::async(std::launch::async, [&] { users.AwaitThoseInside(); });
  EXPECT_FALSE(IsReady(waiting));
  const MappingUsers::Section late(users);
  first.reset();
  waiting.get();  // Although `late` is inside.
}

TEST(RangeLocksTest, OverlappingRangesWaitAndOthersDoNot) {
  RangeLocks locks;
  auto held = std::make_unique<RangeLocks::Guard>(locks, 10, 20);
  { const RangeLocks::Guard beside(locks, 20, 30); }
  { const RangeLocks::Guard in_front(locks, 0, 10); }
  auto overlapping = std::async(std::launch::async, [&] {
    const RangeLocks::Guard guard(locks, 19, 21);
  });
  EXPECT_FALSE(IsReady(overlapping));
  held.reset();
  overlapping.get();
}

}  // namespace
}  // namespace pellucid::qcow2
