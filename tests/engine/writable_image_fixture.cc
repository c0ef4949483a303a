#include "tests/engine/writable_image_fixture.h"

#include <algorithm>
#include <utility>

#include "engine/luks/located_header.h"
#include "engine/luks/unlock.h"
#include "engine/qcow2/snapshots.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {

namespace fs = std::filesystem;

std::vector<std::span<const std::byte>> Spans(const std::vector<Bytes>& files) {
  return {files.begin(), files.end()};
}

void TakeSnapshot(const QemuImages& images, const std::string& image,
                  const std::string& name) {
  std::vector<std::string> command = {"qemu-img", "snapshot", "-c", name};
  const std::vector<std::string> open = images.OpenArguments(image);
  command.insert(command.end(), open.begin(), open.end());
  RunTool(command);
}

ImageInMemory::ImageInMemory(const QemuImages& images, const std::string& name,
                             const std::string& backing)
    : images_(images), name_(name), paths_{images.path(name)} {
  files_.push_back(ReadHostFile(paths_[0]));
  BorrowedDisk image(files_[0]);
  const qcow2::Header header = qcow2::ReadHeader(image, name_);
  if (header.has(qcow2::kExternalDataFile)) {
    paths_.push_back(images.folder() / header.data_file);
    files_.push_back(ReadHostFile(paths_[1]));
  }
  if (!backing.empty()) backing_ = images.Content(backing);
  Unlock(image, header);
}

void ImageInMemory::Unlock(BlockDevice& image, const qcow2::Header& header) {
  if (header.crypt_method == qcow2::CryptMethod::kNone) return;
  KnownPassphrases passphrases = images_.passphrases();
  if (header.crypt_method == qcow2::CryptMethod::kAes) {
    // The passphrase, filled with zeros.
    const auto passphrase = passphrases.Get(paths_[0].native(), 0);
    key_ = crypto::SecretBytes(16);
    std::ranges::copy(
        passphrase->bytes().first(std::min(key_.size(), passphrase->size())),
        key_.bytes().begin());
    spec_ = crypto::CipherSpec{
        .cipher = "aes", .mode = "cbc", .iv = "plain64", .iv_hash = ""};
    return;
  }
  const luks::LocatedHeader luks = luks::ReadLuksHeader(
      image, header.crypto_header->offset, header.crypto_header->length, name_,
      luks::Place::kEmbedded);
  key_ = luks::Unlock(luks, paths_[0].native(), std::nullopt, passphrases);
  spec_ = luks.header.segments.front().encryption->Spec();
}

qcow2::Qcow2Image::Parts ImageInMemory::CommonParts(BlockDevice& image) const {
  qcow2::Qcow2Image::Parts parts;
  parts.file_name = name_;
  parts.header = qcow2::ReadHeader(image, name_);
  parts.snapshots = qcow2::ReadSnapshots(image, name_, parts.header);
  if (backing_) parts.backing = std::make_unique<BorrowedDisk>(*backing_);
  if (spec_) parts.cipher = crypto::MakeSectorCipher(*spec_, key_.bytes());
  // Less than the tables of most tests, so that slices come and go.
  parts.l2_cache_bytes = 32 << 10;
  return parts;
}

std::unique_ptr<qcow2::Qcow2Image> ImageInMemory::Open(
    CrashDisks& disks, const std::optional<qcow2::Header>& header) const {
  std::unique_ptr<ResizableDevice> file = disks.Open(0);
  qcow2::Qcow2Image::Parts parts = CommonParts(*file);
  if (header) parts.header = *header;
  parts.writable_file = std::move(file);
  if (files_.size() > 1) parts.writable_data_file = disks.Open(1);
  return std::make_unique<qcow2::Qcow2Image>(std::move(parts));
}

std::unique_ptr<qcow2::Qcow2Image> ImageInMemory::Open(
    std::unique_ptr<ResizableDevice> file) const {
  qcow2::Qcow2Image::Parts parts = CommonParts(*file);
  parts.writable_file = std::move(file);
  return std::make_unique<qcow2::Qcow2Image>(std::move(parts));
}

std::unique_ptr<BlockDevice> ImageInMemory::OpenReadOnly(
    const std::vector<std::span<const std::byte>>& files,
    const std::string& snapshot) const {
  auto file = std::make_unique<BorrowedDisk>(files[0]);
  qcow2::Qcow2Image::Parts parts = CommonParts(*file);
  if (!snapshot.empty()) {
    parts.snapshot = qcow2::FindSnapshot(parts.snapshots, snapshot, name_);
  }
  parts.file = std::move(file);
  if (files.size() > 1) {
    parts.data_file = std::make_unique<BorrowedDisk>(files[1]);
  }
  return std::make_unique<qcow2::Qcow2Image>(std::move(parts));
}

Bytes ImageInMemory::Content(const std::vector<Bytes>& files,
                             const std::string& snapshot) const {
  return ReadAll(*OpenReadOnly(Spans(files), snapshot));
}

void ImageInMemory::Store(
    const std::vector<std::span<const std::byte>>& files) const {
  for (size_t i = 0; i < files.size(); ++i) WriteHostFile(paths_[i], files[i]);
}

ModelledImage::ModelledImage(OpenDisk open, const CrashDisks& disks,
                             SyncedModel& model)
    : open_(std::move(open)), disks_(disks), model_(model), device_(open_()) {}

void ModelledImage::Write(uint64_t first_sector, uint64_t sectors) {
  const SyncedModel::Change change = model_.BeginWrite(first_sector, sectors);
  device_->Write(first_sector * SyncedModel::kSector, change.content);
  model_.End(change);
}

void ModelledImage::WriteZeroes(uint64_t first_sector, uint64_t sectors,
                                ZeroMode mode) {
  const SyncedModel::Change change = model_.BeginZeroes(first_sector, sectors);
  device_->WriteZeroes(first_sector * SyncedModel::kSector,
                       sectors * SyncedModel::kSector, mode);
  model_.End(change);
}

void ModelledImage::Flush() {
  const uint64_t begun = model_.BeginSync();
  device_->Flush();
  model_.EndSync(begun, disks_.position());
}

void ModelledImage::Reopen() {
  Flush();
  device_.reset();
  device_ = open_();
}

Bytes ModelledImage::Content() { return ReadAll(*device_); }

CrashJudge JudgeOf(const ImageInMemory& image, SyncedModel& model,
                   uint64_t qemu_every) {
  return CrashJudge(
      [&image](const std::vector<std::span<const std::byte>>& disks,
               const qcow2::Header&) { return image.OpenReadOnly(disks); },
      [&image](const std::vector<std::span<const std::byte>>& disks) {
        image.Store(disks);
        return image.OpenArguments();
      },
      model, qemu_every);
}

}  // namespace pellucid
