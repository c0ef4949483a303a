// A family of hostile images: of a small image, every byte of the header is
// flipped, and every 8-byte word of every structure becomes 0, 1, the greatest
// number, or one that is not aligned. Each is read, written and repaired; only
// an Error may come out or what is right, in bounded time and memory.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/qcow2/image_check.h"
#include "engine/qcow2/image_repair.h"
#include "tests/engine/crash_device.h"
#include "tests/engine/growing_memory_device.h"
#include "tests/engine/hostile_session.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/writable_image_fixture.h"

namespace pellucid {
namespace {

constexpr uint64_t kPiece = 4096;
constexpr uint64_t kOffset = 0x00ff'ffff'ffff'fe00;
constexpr uint32_t kBitmaps = 0x23852875;

// Of an image, in bytes of its file.
struct Structure {
  std::string name;
  uint64_t offset = 0;
  uint64_t length = 0;
  // What stands here does not say where guest data is, so that who reads sees
  // the same or an error.
  bool concerns_writers_only = false;
};

struct Family {
  std::string name;
  QemuImage image;
};

void PrintTo(const Family& family, std::ostream* out) { *out << family.name; }

QemuImage Image(uint64_t cluster_size, bool extended_l2 = false,
                std::vector<std::string> more_options = {},
                const std::string& encryption = "none") {
  return {.name = "disk.qcow2",
          .encryption = encryption,
          .cluster_size = cluster_size,
          .virtual_size = 96 << 10,
          .extended_l2 = extended_l2,
          .more_options = std::move(more_options),
          .backing = ""};
}

using Pieces = std::vector<std::optional<Bytes>>;

class HostileFamilyTest : public testing::TestWithParam<Family> {
 protected:
  HostileFamilyTest() {
    images_.Create(GetParam().image);
    images_.Write("disk.qcow2",
                  {"write -q -P 1 0 3k", "write -q -P 2 40k 700"});
    TakeSnapshot(images_, "disk.qcow2", "one");
    if (!is_encrypted()) {
      RunTool({"qemu-img", "bitmap", "--add", "-g", "4096",
               images_.path("disk.qcow2"), "bitmap"});
    }
    images_.Write("disk.qcow2", {"write -q -P 3 1k 700", "write -q -z 60k 8k"});
    memory_.emplace(images_, "disk.qcow2");
    good_ = memory_->files()[0];
    seen_ = Seen(good_);
    // All of it, or nothing could be compared.
    EXPECT_EQ(seen_.size(), GetParam().image.virtual_size / kPiece);
    EXPECT_TRUE(std::ranges::all_of(
        seen_, [](const auto& piece) { return piece.has_value(); }));
  }

  bool is_encrypted() const { return GetParam().image.encryption != "none"; }

  uint64_t Word(uint64_t at) const { return LoadNumber(good_, at, 8); }
  uint64_t cluster_size() const { return GetParam().image.cluster_size; }

  // The L1 table at `offset` and the L2 tables that it names.
  void AddTables(const std::string& name, uint64_t offset, uint64_t entries,
                 std::vector<Structure>& structures) const {
    structures.push_back({name + " L1 table", offset, entries * 8});
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t table = Word(offset + i * 8) & kOffset;
      // Of a large table, what is in use.
      if (table != 0) {
        structures.push_back({name + " L2 table", table,
                              std::min<uint64_t>(cluster_size(), 512)});
      }
    }
  }

  std::vector<Structure> Structures() const {
    std::vector<Structure> structures;
    uint64_t at = LoadNumber(good_, 100, 4);
    uint64_t bitmap_directory = 0, bitmap_bytes = 0;
    for (uint64_t type = 1; type != 0;) {
      type = LoadNumber(good_, at, 4);
      if (type == kBitmaps) {
        bitmap_bytes = Word(at + 16);
        bitmap_directory = Word(at + 24);
      }
      at += 8 + (LoadNumber(good_, at + 4, 4) + 7) / 8 * 8;
    }
    structures.push_back({"header and extensions", 0, at});
    AddTables("active", Word(40), LoadNumber(good_, 36, 4), structures);
    const uint64_t refcount_table = Word(48);
    structures.push_back({"refcount table", refcount_table, 64, true});
    structures.push_back({"refcount block", Word(refcount_table),
                          std::min<uint64_t>(cluster_size(), 256), true});
    const uint64_t snapshot = Word(64);
    structures.push_back({"snapshot table", snapshot, 80, true});
    AddTables("snapshot", Word(snapshot), LoadNumber(good_, snapshot + 8, 4),
              structures);
    if (is_encrypted()) return structures;
    structures.push_back(
        {"bitmap directory", bitmap_directory, bitmap_bytes, true});
    structures.push_back({"bitmap table", Word(bitmap_directory),
                          LoadNumber(good_, bitmap_directory + 8, 4) * 8,
                          true});
    return structures;
  }

  Pieces PiecesOf(BlockDevice& disk) const {
    Pieces pieces;
    const uint64_t end = std::min<uint64_t>(disk.size(), 128 << 10);
    for (uint64_t at = 0; at < end; at += kPiece) {
      Bytes piece(std::min(kPiece, end - at));
      try {
        disk.Read(at, piece);
        pieces.emplace_back(std::move(piece));
      } catch (const Error&) {
        pieces.emplace_back();
      }
    }
    return pieces;
  }

  // Reads the active state, and the snapshot as far as that can be opened.
  Pieces Seen(const Bytes& file) const {
    const auto disk = memory_->OpenReadOnly({file});
    uint64_t at = 0;
    for (int i = 0; i < 2000 && at < disk->size(); ++i) {
      try {
        at += disk->ExtentAt(at, disk->size() - at).length;
      } catch (const Error&) {
        at += kPiece;
      }
    }
    Pieces pieces = PiecesOf(*disk);
    try {
      PiecesOf(*memory_->OpenReadOnly({file}, "one"));
    } catch (const Error&) {
      // It is the active state that counts.
    }
    return pieces;
  }

  void Read(const Bytes& file, const Structure& structure) const {
    const Pieces found = Seen(file);
    if (!structure.concerns_writers_only) return;
    ASSERT_EQ(found.size(), seen_.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(!found[i] || found[i] == seen_[i]) << "at piece " << i;
    }
  }

  // What is written is read back, and the image still opens.
  void Write(const Bytes& file) const {
    auto device = std::make_unique<GrowingMemoryDevice>(file);
    GrowingMemoryDevice& written = *device;
    const auto disk = memory_->Open(std::move(device));
    for (const uint64_t at : {uint64_t{100}, uint64_t{70 << 10}}) {
      if (at + 300 > disk->size()) continue;
      try {
        disk->Write(at, Bytes(300, std::byte{9}));
      } catch (const Error&) {
        continue;
      }
      Bytes back(300);
      disk->Read(at, back);
      EXPECT_TRUE(back == Bytes(300, std::byte{9})) << "at " << at;
    }
    try {
      const uint64_t length = std::min<uint64_t>(disk->size(), 8 << 10);
      disk->WriteZeroes(disk->size() - length, length, ZeroMode::kFreeSpace);
    } catch (const Error&) {
      // Refused, which is right.
    }
    disk->Flush();
    memory_->OpenReadOnly({written.bytes()});
  }

  // No byte of the guest changes that could be read.
  void Repair(const Bytes& file) const {
    GrowingMemoryDevice device(file);
    const qcow2::Header header = qcow2::ReadHeader(device, "disk.qcow2");
    qcow2::CheckImage(device, "disk.qcow2", header);
    const Pieces before = Seen(file);
    qcow2::RepairImage(device, "disk.qcow2");
    const Pieces after = Seen(device.bytes());
    ASSERT_EQ(before.size(), after.size());
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_TRUE(!before[i] || before[i] == after[i]) << "at piece " << i;
    }
  }

  template <typename Session>
  void Run(const char* name, Session session) {
    ExpectBoundedSession(name, session);
    ++runs_;
  }

  void Try(const Bytes& file, const Structure& structure) {
    Run("read", [&] { Read(file, structure); });
    Run("write", [&] { Write(file); });
    Run("repair", [&] { Repair(file); });
  }

  // Every number that stands in for `word` of 8 bytes.
  static std::set<uint64_t> Replacements(uint64_t word) {
    std::set<uint64_t> values = {0,
                                 1,
                                 UINT64_MAX,
                                 word + 0x108,
                                 word ^ 0x100,
                                 word >> 32 << 32,
                                 word | uint64_t{UINT32_MAX}};
    values.erase(word);
    return values;
  }

  QemuImages images_;
  std::optional<ImageInMemory> memory_;
  Bytes good_;
  Pieces seen_;
  uint64_t runs_ = 0;
};

TEST_P(HostileFamilyTest, EveryByteOfTheHeaderFlipped) {
  const Structure header = Structures().front();
  for (uint64_t at = 0; at < header.length; ++at) {
    SCOPED_TRACE(fmt::format("byte {}", at));
    for (const auto bits : {std::byte{0xff}, std::byte(1U << at % 8)}) {
      Bytes damaged = good_;
      damaged[at] ^= bits;
      Try(damaged, header);
    }
    if (HasFailure()) return;
  }
  RecordProperty("runs", std::to_string(runs_));
  EXPECT_GE(runs_, 3 * 2 * 104U);
}

TEST_P(HostileFamilyTest, EveryWordOfEveryStructureReplaced) {
  const std::vector<Structure> structures = Structures();
  for (const Structure& structure : structures) {
    for (uint64_t at = structure.offset;
         at + 8 <= structure.offset + structure.length; at += 8) {
      for (const uint64_t value : Replacements(Word(at))) {
        SCOPED_TRACE(
            fmt::format("{}: {:#x} at byte {}", structure.name, value, at));
        Bytes damaged = good_;
        StoreNumber(damaged, at, 8, value);
        Try(damaged, structure);
        if (HasFailure()) return;
      }
    }
  }
  RecordProperty("runs", std::to_string(runs_));
  // A structure that was not found would make this empty.
  EXPECT_GE(structures.size(), is_encrypted() ? 7U : 9U);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, HostileFamilyTest,
    testing::Values(
        Family{"Clusters512", Image(512)}, Family{"Clusters4K", Image(4096)},
        Family{"Refcounts64", Image(512, false, {"refcount_bits=64"})},
        Family{"Refcounts8", Image(1024, false, {"refcount_bits=8"})},
        Family{"Extended", Image(16384, true)},
        Family{"Aes", Image(512, false, {}, "aes")},
        Family{"Luks", Image(4096, false, {}, "luks")}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace pellucid
