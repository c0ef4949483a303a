// Power cuts of `mount --overlay`: what they leave of the overlay, while it is
// written through the whole stack and while it is made.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/cluster_cache.h"
#include "engine/create_image.h"
#include "engine/errors.h"
#include "engine/image_layers.h"
#include "engine/luks/luks_device.h"
#include "engine/luks/unlock.h"
#include "engine/qcow2/image_check.h"
#include "engine/qcow2/qcow2_image.h"
#include "tests/engine/crash_device.h"
#include "tests/engine/crash_judge.h"
#include "tests/engine/crash_points.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/synced_model.h"
#include "tests/engine/writable_image_fixture.h"
#include "tests/tools/encrypted_image_fixture.h"
#include "tools/overlay.h"

namespace pellucid {
namespace {

using testing::HasSubstr;

constexpr uint64_t kEvidenceBytes = 1 << 20;

// What the overlay stands over.
struct Evidence {
  const char* name;
  const char* format;
  bool is_detached;  // LUKS above the overlay, not in it.
};

void PrintTo(const Evidence& evidence, std::ostream* out) {
  *out << evidence.name;
}

class OverlayCrashTest : public EncryptedImageTest,
                         public testing::WithParamInterface<Evidence> {
 protected:
  OverlayCrashTest() : passphrases_({std::string(kPassphrase)}) {
    KeyFile();
    std::vector<std::string> create = {
        "create",   "--key-file",     "key", "--iter-time", "10",
        "--format", GetParam().format};
    if (GetParam().is_detached) {
      create.insert(create.end(), {"--detached-header", "header"});
      options_.header = folder_ / "header";
    }
    options_.image = folder_ / "evidence";
    options_.writable = true;
    create.insert(create.end(), {options_.image, "1M"});
    MustRun(create);
    // Not all of it, so that some clusters are in neither file.
    Bytes content = Noise(kEvidenceBytes, 5);
    std::fill(content.begin() + 300'000, content.begin() + 600'000,
              std::byte{0});
    WriteHostFile(folder_ / "content", content);
    std::vector<std::string> import = {"import", "--key-file", "key"};
    if (GetParam().is_detached) {
      import.insert(import.end(), {"--header", "header"});
    }
    import.insert(import.end(), {folder_ / "content", options_.image});
    MustRun(import);
    hashes_ = Hashes();
  }

  void MustRun(const std::vector<std::string>& arguments) {
    const ProgramResult result = RunPellucid(arguments);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }

  std::vector<std::string> Hashes() const {
    std::vector<std::string> hashes = {Sha256(ReadHostFile(options_.image))};
    if (GetParam().is_detached) {
      hashes.push_back(Sha256(ReadHostFile(options_.header)));
    }
    return hashes;
  }

  std::filesystem::path overlay() const { return folder_ / "overlay.qcow2"; }

  // As the user's next mount opens it.
  OpenedImage Mount() {
    return OpenImage(
        cli::OpenOptionsOfOverlay(options_, overlay(), passphrases_),
        passphrases_);
  }

  Bytes ContentOfEvidence() {
    OpenOptions reading = options_;
    reading.writable = false;
    return ReadAll(*OpenImage(reading, passphrases_).device);
  }

  KnownPassphrases passphrases_;
  OpenOptions options_;
  std::vector<std::string> hashes_;
};

INSTANTIATE_TEST_SUITE_P(
    Over, OverlayCrashTest,
    testing::Values(Evidence{"RawWithDetachedHeader", "raw", true},
                    Evidence{"Qcow2WithDetachedHeader", "qcow2", true},
                    Evidence{"EncryptedQcow2", "qcow2", false}),
    [](const auto& info) { return std::string(info.param.name); });

// An overlay that is made once, unlocked, and opened on disks in memory then:
// deriving its keys again for each power cut would take hours.
class OverlayInMemory {
 public:
  OverlayInMemory(const OpenOptions& options, PassphraseSource& passphrases)
      : name_(options.image.native()), file_(ReadHostFile(options.image)) {
    OpenOptions reading = options;
    reading.writable = false;
    overlay_ = OpenLayers(reading.image, ContainerFormat::kQcow2, "", reading,
                          IfNamedFileFails::kThrow);
    UnlockLayers(*overlay_, std::nullopt, passphrases, std::nullopt);
    backing_ = ReadAll(*AssembleLayers(std::move(overlay_->backing)).device);
    overlay_->file = {};  // Others are to mount what is put in its place.
    if (reading.header.empty()) return;
    const Bytes header = ReadHostFile(reading.header);
    BorrowedDisk disk(header);
    volume_ = luks::ReadLuksHeader(disk, 0, disk.size(), "header",
                                   luks::Place::kDetached);
    volume_key_ = luks::Unlock(*volume_, "header", std::nullopt, passphrases);
  }

  const Bytes& file() const { return file_; }

  // As OpenImage() and `pellucid mount` stack them, with a cache so small that
  // it writes back before it is told to.
  std::unique_ptr<WritableDevice> Open(CrashDisks& disks) const {
    std::unique_ptr<ResizableDevice> file = disks.Open();
    qcow2::Qcow2Image::Parts parts = PartsOf(*file);
    parts.writable_file = std::move(file);
    std::unique_ptr<WritableDevice> top =
        std::make_unique<qcow2::Qcow2Image>(std::move(parts));
    if (volume_) {
      top = std::make_unique<luks::LuksDevice>(std::move(top), volume_->header,
                                               volume_key_.bytes());
    }
    ClusterCache::Options options;
    options.capacity_bytes = 64 << 10;
    options.line_bytes = 16 << 10;
    options.max_age = std::chrono::hours(1);
    return std::make_unique<ClusterCache>(std::move(top), options);
  }

  std::unique_ptr<BlockDevice> OpenReadOnly(
      std::span<const std::byte> content) const {
    auto file = std::make_unique<BorrowedDisk>(content);
    qcow2::Qcow2Image::Parts parts = PartsOf(*file);
    parts.file = std::move(file);
    std::unique_ptr<BlockDevice> top =
        std::make_unique<qcow2::Qcow2Image>(std::move(parts));
    if (!volume_) return top;
    return std::make_unique<luks::LuksDevice>(std::move(top), volume_->header,
                                              volume_key_.bytes());
  }

 private:
  qcow2::Qcow2Image::Parts PartsOf(BlockDevice& file) const {
    qcow2::Qcow2Image::Parts parts;
    parts.file_name = name_;
    parts.header = qcow2::ReadHeader(file, name_);
    parts.backing = std::make_unique<BorrowedDisk>(backing_);
    parts.cipher = ClusterCipher(*overlay_);
    parts.l2_cache_bytes = 32 << 10;
    return parts;
  }

  const std::string name_;
  const Bytes file_;
  std::unique_ptr<ImageLayer> overlay_;  // Without its backing layer.
  Bytes backing_;  // What the overlay shows where it has nothing.
  std::optional<luks::LocatedHeader> volume_;  // Above it.
  crypto::SecretBytes volume_key_;
};

void WriteAround(ModelledImage& image, std::mt19937_64& random) {
  for (int i = 0; i < 120; ++i) {
    const uint64_t at = random() % (image.sectors() - 64);
    switch (random() % 8) {
      case 0:
        image.WriteZeroes(at, 1 + random() % 64, ZeroMode::kFreeSpace);
        break;
      case 1:
        image.Flush();
        break;
      default:
        image.Write(at, 1 + random() % 32);
    }
  }
  image.Flush();
}

CrashJudge JudgeOf(const OverlayInMemory& overlay, SyncedModel& model) {
  return CrashJudge(
      [&](const std::vector<std::span<const std::byte>>& disks,
          const qcow2::Header&) { return overlay.OpenReadOnly(disks[0]); },
      nullptr, model, 0);
}

TEST_P(OverlayCrashTest, EveryPowerCutLeavesASoundOverlay) {
  const OverlayInMemory overlay(
      cli::OpenOptionsOfOverlay(options_, this->overlay(), passphrases_),
      passphrases_);
  SyncedModel model(ReadAll(*overlay.OpenReadOnly(overlay.file())));
  CrashDisks disks(overlay.file());
  {
    ModelledImage writer([&] { return overlay.Open(disks); }, disks, model);
    std::mt19937_64 random(17);
    WriteAround(writer, random);
    ASSERT_EQ(model.CheckNow(writer.Content()), "");
  }

  CrashJudge judge = JudgeOf(overlay, model);
  const std::string qemu_opens =
      GetParam().is_detached
          ? "driver=qcow2,file.filename=overlay.qcow2"
          : "driver=qcow2,file.filename=overlay.qcow2,encrypt.key-secret=k,"
            "backing.driver=qcow2,backing.file.filename=evidence,"
            "backing.encrypt.key-secret=k";
  uint64_t until_next_mount = 0;
  uint64_t mounts = 0;
  std::mt19937_64 random(23);
  const auto mount_and_go_on = [&](const CrashPoint& point) {
    WriteHostFile(this->overlay(), point.disks[0]);
    ASSERT_EQ(
        QemuCheck({"--object", "secret,id=k,file=" + (folder_ / "key").native(),
                   "--image-opts", qemu_opens},
                  /*leaks_allowed=*/true, folder_.path()),
        "");
    {
      const OpenedImage mounted = Mount();
      Bytes content = ReadAll(*mounted.device);
      ASSERT_EQ(model.Check(content, point.position), "");
      for (int i = 0; i < 20; ++i) {
        const uint64_t at = random() % (content.size() - 20'000);
        const Bytes piece = Noise(1 + random() % 20'000, random());
        mounted.writable->Write(at, piece);
        std::ranges::copy(piece, content.begin() + static_cast<ptrdiff_t>(at));
      }
      mounted.writable->Flush();
      ASSERT_EQ(FirstDifference(ReadAll(*mounted.device), content), "");
    }
    const Bytes file = ReadHostFile(this->overlay());
    BorrowedDisk disk(file);
    const qcow2::ImageCheck check =
        qcow2::CheckImage(disk, "overlay", qcow2::ReadHeader(disk, "overlay"));
    ASSERT_TRUE(check.is_sound()) << testing::PrintToString(check.texts());
    ASSERT_EQ(Hashes(), hashes_);
    ++mounts;
  };
  bool failed = false;
  const uint64_t points =
      ForEachCrashPoint(disks, 2, 3, [&](const CrashPoint& point) {
        if (failed) return;
        SCOPED_TRACE(point.description);
        const std::string wrong = judge.Judge(point);
        if (!wrong.empty()) {
          ADD_FAILURE() << wrong;
        } else if (until_next_mount-- == 0) {
          until_next_mount = GetParam().is_detached ? 60 : 120;
          mount_and_go_on(point);
        }
        failed = HasFailure();
      });
  EXPECT_GT(points, 300u);
  EXPECT_GT(mounts, 2u);
  EXPECT_EQ(Hashes(), hashes_);
}

// The cuts that are tried do find an overlay whose writes have no order.
TEST_P(OverlayCrashTest, ADiskThatIgnoresFlushesIsFound) {
  const OverlayInMemory overlay(
      cli::OpenOptionsOfOverlay(options_, this->overlay(), passphrases_),
      passphrases_);
  SyncedModel model(ReadAll(*overlay.OpenReadOnly(overlay.file())));
  CrashDisks disks(overlay.file());
  disks.IgnoreFlushes();
  {
    ModelledImage writer([&] { return overlay.Open(disks); }, disks, model);
    std::mt19937_64 random(17);
    WriteAround(writer, random);
  }
  CrashJudge judge = JudgeOf(overlay, model);
  const CrashFailures failures = CountFailures(judge, disks);
  EXPECT_GT(failures.corrupt, 5u);
  EXPECT_GT(failures.lost, 5u);
}

// A file that is not there yet needs no test: the next mount makes it.
TEST_P(OverlayCrashTest, AnOverlayHalfMadeIsRefusedWithTheRemedy) {
  const ImageCreation creation(cli::OverlayOver(options_, overlay()));
  EXPECT_EQ(creation.wanted().luks.has_value(), !GetParam().is_detached);
  CrashDisks disks(Bytes{});
  creation.WriteImageTo(
      *disks.Open(),
      crypto::SecretBytes(std::as_bytes(std::span(kPassphrase))));
  ASSERT_EQ(disks.events().back().kind, DiskEvent::Kind::kFlush);

  const Bytes content = ContentOfEvidence();
  uint64_t refused = 0;
  uint64_t opened = 0;
  const double samples = GetParam().is_detached ? 10 : 3;
  ForEachCrashPoint(disks, samples, 1, [&](const CrashPoint& point) {
    if (HasFailure()) return;
    SCOPED_TRACE(point.description);
    WriteHostFile(overlay(), point.disks[0]);
    try {
      cli::OpenOptionsOfOverlay(options_, overlay(), passphrases_);
    } catch (const CorruptImage& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr("delete it"));
      return;
    }
    ++opened;
    EXPECT_EQ(FirstDifference(ReadAll(*Mount().device), content), "");
  });
  EXPECT_GT(refused, 50u);
  EXPECT_GT(opened, 0u);
  EXPECT_EQ(Hashes(), hashes_);

  // What the message says helps.
  std::filesystem::remove(overlay());
  EXPECT_EQ(FirstDifference(ReadAll(*Mount().device), content), "");
}

}  // namespace
}  // namespace pellucid
