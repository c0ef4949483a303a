// Snapshots opened beside the active state of an image.

#include "engine/snapshot_disks.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "engine/image_snapshots.h"
#include "engine/open_image.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class SnapshotDisksVariantTest : public ::testing::TestWithParam<ImageVariant> {
};

TEST_P(SnapshotDisksVariantTest, ReadAsQemuHasReadThem) {
  QemuImages images;
  MakeVariant(GetParam(), images);
  std::vector<Bytes> states;
  for (const char* name : {"first", "second"}) {
    states.push_back(images.Content("top.qcow2"));
    ImageSnapshots(images.path("top.qcow2")).Create(name);
    images.Write("top.qcow2",
                 ScatteredWrites(images, states[0].size(),
                                 GetParam().cluster_size, 20, states.size()));
  }
  const Bytes now = images.Content("top.qcow2");
  ASSERT_NE(states[0], states[1]);
  KnownPassphrases known = images.passphrases();
  const OpenedImage image = OpenImage(images.options("top.qcow2"), known);
  const int asked = known.given();
  ASSERT_TRUE(image.snapshots);
  ASSERT_EQ(image.snapshots->count(), states.size());
  std::vector<std::unique_ptr<BlockDevice>> disks;
  for (size_t i = 0; i < states.size(); ++i) {
    disks.push_back(image.snapshots->Open(i));
  }
  for (size_t i = 0; i < states.size(); ++i) {
    ASSERT_EQ(FirstDifference(ReadAll(*disks[i], 100003), states[i]), "");
    CheckRandomReads(*disks[i], states[i], 100, i);
    CheckExtents(*disks[i], states[i]);
    // Holes are where they are if the snapshot is opened alone.
    OpenOptions alone = images.options("top.qcow2");
    alone.snapshot = image.snapshots->info(i).name;
    KnownPassphrases again = images.passphrases();
    EXPECT_EQ(CheckExtents(*disks[i], states[i]),
              CheckExtents(*OpenImage(alone, again).device, states[i]));
  }
  EXPECT_EQ(FirstDifference(ReadAll(*image.device), now), "");
  EXPECT_EQ(known.given(), asked);
}

INSTANTIATE_TEST_SUITE_P(
    Product, SnapshotDisksVariantTest,
    ::testing::Values(ImageVariant{512, "v2", "aes", true},
                      ImageVariant{4096, "v3", "luks", false},
                      ImageVariant{65536, "extended", "luks", true},
                      ImageVariant{2 << 20, "v3", "none", true}),
    [](const ::testing::TestParamInfo<ImageVariant>& info) {
      return TestName(info.param);
    });

class SnapshotDisksTest : public ::testing::Test {
 protected:
  void MakeImage(const std::string& encryption = "luks") {
    images_.Create({.name = kName,
                    .encryption = encryption,
                    .cluster_size = 4096,
                    .virtual_size = kMiB,
                    .more_options = {},
                    .backing = ""});
    images_.Write(kName, ScatteredWrites(images_, kMiB, 4096, 30, 1));
    state_ = images_.Content(kName);
    ImageSnapshots(images_.path(kName)).Create("first");
    images_.Write(kName, ScatteredWrites(images_, kMiB, 4096, 30, 2));
  }
  OpenedImage Open(bool writable = false) {
    OpenOptions options = images_.options(kName);
    options.writable = writable;
    KnownPassphrases known = images_.passphrases();
    return OpenImage(options, known);
  }

  static constexpr char kName[] = "disk.qcow2";
  QemuImages images_;
  Bytes state_;  // In the snapshot.
};

TEST_F(SnapshotDisksTest, AreNotThereWithoutSnapshotsOrBesideOne) {
  images_.Create({.name = kName,
                  .encryption = "none",
                  .cluster_size = 65536,
                  .virtual_size = kMiB,
                  .more_options = {},
                  .backing = ""});
  EXPECT_FALSE(Open().snapshots);
  ImageSnapshots(images_.path(kName)).Create("first");
  EXPECT_TRUE(Open().snapshots);
  OpenOptions options = images_.options(kName);
  options.snapshot = "first";
  KnownPassphrases none;
  EXPECT_FALSE(OpenImage(options, none).snapshots);
}

TEST_F(SnapshotDisksTest, StayAsTheyWereWhileTheDiskIsWritten) {
  MakeImage();
  {
    OpenedImage image = Open(/*writable=*/true);
    const auto disk = image.snapshots->Open(0);
    std::atomic<bool> stop = false;
    std::atomic<int> rounds = 0;
    std::string difference;
    std::thread reader([&] {
      while (!stop && difference.empty()) {
        difference = FirstDifference(ReadAll(*disk, 10007), state_);
        ++rounds;
      }
    });
    for (int round = 0; round < 20 || rounds < 3; ++round) {
      const Bytes noise = Noise(kMiB / 4, static_cast<uint64_t>(round));
      image.writable->Write(static_cast<uint64_t>(round % 4) * kMiB / 4, noise);
      image.writable->WriteZeroes(static_cast<uint64_t>(round % 7) * 4096, 8192,
                                  ZeroMode::kFreeSpace);
      image.writable->Flush();
    }
    stop = true;
    reader.join();
    EXPECT_EQ(difference, "");
  }
  OpenedImage image = Open();
  EXPECT_EQ(FirstDifference(ReadAll(*image.snapshots->Open(0)), state_), "");
}

TEST_F(SnapshotDisksTest, HaveTheSizeOfTheirTime) {
  MakeImage("none");
  RunTool(
      {"qemu-img", "resize", "-q", "--shrink", images_.path(kName), "256K"});
  const OpenedImage image = Open();
  EXPECT_EQ(image.device->size(), kMiB / 4);
  const auto disk = image.snapshots->Open(0);
  ASSERT_EQ(disk->size(), kMiB);
  EXPECT_EQ(FirstDifference(ReadAll(*disk), state_), "");
}

TEST_F(SnapshotDisksTest, AnL1TableMayEndWithTheFile) {
  MakeImage();
  Bytes file = ReadHostFile(images_.path(kName));
  const uint64_t entry = LoadNumber(file, 64, 8);  // snapshots_offset
  const uint64_t l1 = LoadNumber(file, entry, 8);
  const uint64_t l1_bytes = LoadNumber(file, entry + 8, 4) * 8;
  file.resize((file.size() + 4095) / 4096 * 4096);
  StoreNumber(file, entry, 8, file.size());
  file.insert(file.end(), file.begin() + static_cast<ptrdiff_t>(l1),
              file.begin() + static_cast<ptrdiff_t>(l1 + l1_bytes));
  WriteHostFile(images_.path(kName), file);
  const OpenedImage image = Open();
  EXPECT_EQ(FirstDifference(ReadAll(*image.snapshots->Open(0)), state_), "");
}

TEST_F(SnapshotDisksTest, ADamagedOneHarmsOnlyItself) {
  MakeImage();
  const Bytes now = images_.Content(kName);
  ImageSnapshots(images_.path(kName)).Create("second");
  Bytes file = ReadHostFile(images_.path(kName));
  const uint64_t entry = LoadNumber(file, 64, 8);
  StoreNumber(file, entry, 8, LoadNumber(file, entry, 8) + 512);
  WriteHostFile(images_.path(kName), file);
  const OpenedImage image = Open();
  EXPECT_THAT(ThrownText<CorruptImage>([&] { image.snapshots->Open(0); }),
              HasSubstr("l1_table_offset"));
  EXPECT_EQ(FirstDifference(ReadAll(*image.snapshots->Open(1)), now), "");
}

// LUKS volumes that cryptsetup has made, in a plain qcow2 image.
class SnapshotLuksTest : public ::testing::Test {
 protected:
  SnapshotLuksTest() {
    WriteHostFile(folder_ / "key", kPassphrase);
    WriteHostFile(folder_ / "other key", "other");
  }

  static constexpr uint64_t kVolume = 20 * kMiB;

  void Cryptsetup(std::vector<std::string> what) {
    what.insert(what.begin() + 1,
                {"--batch-mode", "--key-file", folder_ / "key"});
    what.insert(what.begin(), "cryptsetup");
    RunTool(what);
  }
  // A volume whose payload is noise.
  void Format(const std::string& volume) {
    WriteHostFile(folder_ / volume, Noise(kVolume, 7));
    Cryptsetup({"luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
                "1000", folder_ / volume});
  }
  void MakeImage() {
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", image(),
             std::to_string(kVolume)});
  }
  void WriteToImage(const fs::path& source) {
    RunTool({"qemu-io", "-f", "qcow2", "-c",
             fmt::format("write -q -s {} 0 {}", source.native(),
                         fs::file_size(source)),
             image()});
  }
  void TakeSnapshot(const std::string& name) {
    ImageSnapshots(image()).Create(name);
  }
  std::string image() const { return folder_ / "disk.qcow2"; }

  OpenedImage Open(const std::string& snapshot = "",
                   const fs::path& header = {},
                   const std::string& passphrase = kPassphrase) {
    OpenOptions options;
    options.image = image();
    options.snapshot = snapshot;
    options.header = header;
    KnownPassphrases known({passphrase});
    return OpenImage(options, known);
  }
  // A snapshot beside the others reads as it does alone.
  void ExpectAsAlone(const OpenedImage& image, size_t index,
                     const fs::path& header = {}) {
    const std::string name = image.snapshots->info(index).name;
    const auto disk = image.snapshots->Open(index);
    EXPECT_EQ(
        FirstDifference(ReadAll(*disk), ReadAll(*Open(name, header).device)),
        "")
        << name;
  }

  static constexpr char kPassphrase[] = "the passphrase";
  ScratchFolder folder_;
};

TEST_F(SnapshotLuksTest, ADetachedHeaderServesAllStates) {
  const fs::path header = folder_ / "header";
  WriteHostFile(folder_ / "device", Bytes(kMiB));
  Cryptsetup({"luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
              "1000", "--header", header, folder_ / "device"});
  MakeImage();
  for (const uint64_t seed : {1U, 2U, 3U}) {
    WriteHostFile(folder_ / "noise", Noise(kMiB, seed));
    WriteToImage(folder_ / "noise");
    TakeSnapshot(fmt::format("state {}", seed));
  }
  const OpenedImage image = Open("", header);
  ASSERT_EQ(image.snapshots->count(), 3U);
  for (const size_t i : {0U, 1U, 2U}) ExpectAsAlone(image, i, header);
  EXPECT_NE(ReadAll(*image.snapshots->Open(0)),
            ReadAll(*image.snapshots->Open(1)));
}

TEST_F(SnapshotLuksTest, AHeaderOnTheDiskIsThatOfEachState) {
  MakeImage();
  TakeSnapshot("before LUKS");
  Format("volume");
  WriteToImage(folder_ / "volume");
  TakeSnapshot("one keyslot");
  Cryptsetup({"luksAddKey", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
              "1000", folder_ / "volume", folder_ / "other key"});
  WriteToImage(folder_ / "volume");
  TakeSnapshot("two keyslots");
  const OpenedImage image = Open();
  ASSERT_EQ(image.snapshots->count(), 3U);
  EXPECT_EQ(ReadAll(*image.snapshots->Open(0)), Bytes(kVolume));
  ExpectAsAlone(image, 1);
  ExpectAsAlone(image, 2);
}

TEST_F(SnapshotLuksTest, AVolumeOfAnotherKeyIsRefused) {
  MakeImage();
  Format("volume");
  WriteToImage(folder_ / "volume");
  TakeSnapshot("old");
  Format("anew");
  WriteToImage(folder_ / "anew");
  TakeSnapshot("new");
  const OpenedImage image = Open();
  EXPECT_THAT(
      ThrownText<Unsupported>([&] { image.snapshots->Open(0); }),
      testing::AllOf(HasSubstr("another key"), HasSubstr("--snapshot")));
  ExpectAsAlone(image, 1);
}

}  // namespace
}  // namespace pellucid
