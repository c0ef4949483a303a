#include "tests/engine/crash_points.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <string>

#include "engine/errors.h"
#include "tests/engine/synced_model.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

Bytes Filled(size_t size, int value) {
  return Bytes(size, static_cast<std::byte>(value));
}

// One letter a sector.
std::string Letters(std::span<const std::byte> disk) {
  std::string letters;
  for (size_t i = 0; i < disk.size(); i += 512) {
    for (const std::byte b : disk.subspan(i, 512)) {
      EXPECT_EQ(b, disk[i]) << "a torn sector";
    }
    letters += disk[i] == std::byte{0}
                   ? '.'
                   : static_cast<char>(std::to_integer<char>(disk[i]));
  }
  return letters;
}

std::set<std::string> PointsOf(const CrashDisks& disks, double samples) {
  std::set<std::string> points;
  ForEachCrashPoint(disks, samples, 1, [&](const CrashPoint& point) {
    points.insert(Letters(point.disks[0]));
  });
  return points;
}

TEST(CrashPointsTest, WithoutSamplesEachPrefixOnce) {
  CrashDisks disks(Filled(1024, 'o'));
  const auto disk = disks.Open();
  disk->Write(0, Filled(512, 'a'));
  disk->Flush();
  disk->WriteZeroes(512, 512, ZeroMode::kFreeSpace);
  disk->Write(1024, Filled(512, 'b'));
  disk->Resize(2048);
  std::vector<std::string> points;
  std::vector<size_t> positions;
  ForEachCrashPoint(disks, 0, 1, [&](const CrashPoint& point) {
    points.push_back(Letters(point.disks[0]));
    positions.push_back(point.position);
  });
  EXPECT_EQ(points, std::vector<std::string>(
                        {"oo", "ao", "a.", "a.b", "a.b.", "a.b."}));
  EXPECT_EQ(positions, std::vector<size_t>({0, 1, 3, 4, 5, 5}));
}

TEST(CrashPointsTest, SectorsBehindABarrierAreOldOrNewOnTheirOwn) {
  CrashDisks disks(Filled(3 * 512, 'o'));
  const auto disk = disks.Open();
  disk->Write(0, Filled(3 * 512, 'a'));
  const std::set<std::string> points = PointsOf(disks, 400);
  EXPECT_EQ(points, std::set<std::string>({"ooo", "ooa", "oao", "oaa", "aoo",
                                           "aoa", "aao", "aaa"}));
}

TEST(CrashPointsTest, NothingInFrontOfABarrierIsMissing) {
  CrashDisks disks(Filled(3 * 512, 'o'));
  const auto disk = disks.Open();
  disk->Write(0, Filled(512, 'a'));
  disk->Flush();
  disk->Write(512, Filled(512, 'b'));
  disk->Write(1024, Filled(512, 'c'));
  EXPECT_EQ(PointsOf(disks, 200),
            std::set<std::string>({"ooo", "aoo", "abo", "aoc", "abc"}));
}

TEST(CrashPointsTest, TheEndHasAnOrderOfItsOwn) {
  CrashDisks disks(Filled(512, 'o'));
  const auto disk = disks.Open();
  disk->Write(512, Filled(512, 'a'));
  disk->Write(1024, Filled(512, 'b'));
  EXPECT_EQ(PointsOf(disks, 400), std::set<std::string>({"o", "oa", "o.", "o.b",
                                                         "oab", "oa.", "o.."}));
}

TEST(CrashPointsTest, ABarrierHoldsForItsOwnDiskOnly) {
  CrashDisks disks(std::vector<Bytes>{Filled(512, 'o'), Filled(512, 'o')});
  const auto first = disks.Open(0);
  const auto second = disks.Open(1);
  first->Write(0, Filled(512, 'a'));
  second->Write(0, Filled(512, 'b'));
  second->Flush();
  first->Write(0, Filled(512, 'c'));
  std::set<std::string> points;
  ForEachCrashPoint(disks, 100, 1, [&](const CrashPoint& point) {
    if (point.position < 4) return;
    points.insert(Letters(point.disks[0]) + Letters(point.disks[1]));
  });
  EXPECT_EQ(points, std::set<std::string>({"ob", "ab", "cb"}));
}

TEST(CrashPointsTest, SamplesLeaveNothingBehind) {
  CrashDisks disks(Noise(64 * 512, 1));
  const auto disk = disks.Open();
  std::mt19937_64 random(5);
  for (int i = 0; i < 300; ++i) {
    const uint64_t offset = random() % disk->size();
    switch (random() % 6) {
      case 0:
        disk->Resize(std::max<uint64_t>(disk->size() - 700, 20000));
        break;
      case 1:
        disk->Flush();
        break;
      case 2:
        disk->WriteZeroes(offset, (disk->size() - offset) / 2,
                          ZeroMode::kKeepSpace);
        break;
      default:
        disk->Write(offset, Noise(1 + random() % 3000, random()));
    }
  }
  // At each prefix the disk is what replaying the events gives.
  uint64_t prefixes = 0;
  ForEachCrashPoint(disks, 3, 9, [&](const CrashPoint& point) {
    if (!point.description.ends_with("all of them")) return;
    CrashDisks replay(disks.initial());
    const auto copy = replay.Open();
    for (size_t i = 0; i < point.position; ++i) {
      const DiskEvent& event = disks.events()[i];
      if (event.kind == DiskEvent::Kind::kWrite) {
        copy->Write(event.offset, event.bytes);
      } else if (event.kind == DiskEvent::Kind::kZeroes) {
        copy->WriteZeroes(event.offset, event.length, ZeroMode::kKeepSpace);
      } else if (event.kind == DiskEvent::Kind::kResize) {
        copy->Resize(event.length);
      }
    }
    ++prefixes;
    EXPECT_TRUE(std::ranges::equal(point.disks[0], replay.contents()[0]));
  });
  EXPECT_GT(prefixes, 200U);
}

TEST(CrashPointsTest, SamplesCostNothingForTheSizeOfTheDisk) {
  CrashDisks disks(Bytes(16 << 20));
  const auto disk = disks.Open();
  for (uint64_t i = 0; i < 1000; ++i) {
    disk->Write(i * 8192, Filled(4096, 'a'));
    if (i % 10 == 9) disk->Flush();
  }
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(ForEachCrashPoint(disks, 20, 1, [](const CrashPoint&) {}),
            1 + 1000 + 20000 + 1U);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(CrashDisksTest, FailedChangesThrowAndLeaveHalf) {
  CrashDisks disks(Filled(1024, 'o'));
  const auto disk = disks.Open();
  disks.FailChanges(1, 2, ENOSPC);
  disk->Write(0, Filled(1024, 'a'));
  try {
    disk->Write(0, Filled(1024, 'b'));
    FAIL() << "no error";
  } catch (const IoError& error) {
    EXPECT_EQ(error.host_errno(), ENOSPC);
  }
  EXPECT_THROW(disk->Flush(), IoError);
  disk->Flush();
  EXPECT_EQ(disks.StopFailing(), 2U);
  EXPECT_EQ(Letters(disks.contents()[0]), "ba");
  EXPECT_EQ(disks.changes(), 4U);
  EXPECT_EQ(disks.position(), 3U);
}

class SyncedModelTest : public ::testing::Test {
 protected:
  void Write(uint64_t sector, uint64_t sectors) {
    const SyncedModel::Change change = model.BeginWrite(sector, sectors);
    std::ranges::copy(change.content,
                      disk.begin() + static_cast<ptrdiff_t>(sector * 512));
    model.End(change);
  }
  void Sync() { model.EndSync(model.BeginSync(), ++position); }

  SyncedModel model{Noise(8 * 512, 3)};
  Bytes disk = Noise(8 * 512, 3);
  size_t position = 0;
};

TEST_F(SyncedModelTest, OldContentIsLegalUntilASync) {
  const Bytes old = disk;
  Write(2, 3);
  EXPECT_EQ(model.Check(old, position), "");
  EXPECT_EQ(model.Check(disk, position), "");
  EXPECT_THAT(model.CheckNow(old), HasSubstr("sector 2 (byte 1024)"));
  Sync();
  EXPECT_EQ(model.Check(disk, position), "");
  EXPECT_THAT(model.Check(old, position), HasSubstr("sector 2 (byte 1024)"));
  // A power cut in front of the end of the sync.
  EXPECT_EQ(model.Check(old, position - 1), "");
}

TEST_F(SyncedModelTest, AnythingSinceTheSyncIsLegal) {
  Write(0, 1);
  const Bytes first = disk;
  Write(0, 1);
  const Bytes second = disk;
  Sync();
  Write(0, 1);
  const Bytes third = disk;
  Write(0, 1);
  EXPECT_THAT(model.Check(first, position), HasSubstr("which is lost"));
  EXPECT_EQ(model.Check(second, position), "");
  EXPECT_EQ(model.Check(third, position), "");
  EXPECT_EQ(model.Check(disk, position), "");
}

TEST_F(SyncedModelTest, MixedAndForeignSectorsAreNot) {
  const Bytes before = disk;
  Write(0, 2);
  Bytes mixed = disk;
  std::copy_n(before.begin() + 300, 212, mixed.begin() + 300);
  EXPECT_NE(model.Check(mixed, position), "");
  Bytes foreign = disk;
  std::copy_n(disk.begin() + 512, 512, foreign.begin());
  EXPECT_THAT(model.Check(foreign, position), HasSubstr("of sector 1"));
}

TEST_F(SyncedModelTest, ZeroesCountAsAVersion) {
  const SyncedModel::Change change = model.BeginZeroes(1, 1);
  Bytes zeroed = disk;
  std::fill_n(zeroed.begin() + 512, 512, std::byte{0});
  EXPECT_EQ(model.Check(zeroed, position), "");
  EXPECT_EQ(model.Check(disk, position), "");
  model.End(change);
  Sync();
  EXPECT_EQ(model.Check(zeroed, position), "");
  EXPECT_NE(model.Check(disk, position), "");
  Write(1, 1);
  Sync();
  EXPECT_NE(model.Check(zeroed, position), "");
}

TEST_F(SyncedModelTest, OfTwoWritesAtOnceEitherIsLegal) {
  const SyncedModel::Change a = model.BeginWrite(0, 1);
  const SyncedModel::Change b = model.BeginWrite(0, 1);
  model.End(b);
  model.End(a);
  Sync();
  for (const SyncedModel::Change* change : {&a, &b}) {
    std::ranges::copy(change->content, disk.begin());
    EXPECT_EQ(model.Check(disk, position), "");
  }
}

TEST_F(SyncedModelTest, AWriteThatFailedMayOrMayNotBeThere) {
  const Bytes old = disk;
  const SyncedModel::Change failed = model.BeginWrite(0, 1);
  Sync();
  EXPECT_EQ(model.Check(old, position), "");
  std::ranges::copy(failed.content, disk.begin());
  EXPECT_EQ(model.Check(disk, position), "");
}

}  // namespace
}  // namespace pellucid
