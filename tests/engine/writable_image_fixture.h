#ifndef PELLUCID_TESTS_ENGINE_WRITABLE_IMAGE_FIXTURE_H_
#define PELLUCID_TESTS_ENGINE_WRITABLE_IMAGE_FIXTURE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "crypto/secret_bytes.h"
#include "crypto/sector_cipher.h"
#include "engine/qcow2/header.h"
#include "engine/qcow2/qcow2_image.h"
#include "tests/engine/crash_device.h"
#include "tests/engine/crash_judge.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/synced_model.h"

namespace pellucid {

// An image that QEMU made, its files held in memory: unlocked once, then opened
// as often as a test likes. Its backing file is what QEMU reads from it.
class ImageInMemory {
 public:
  // Borrows `images`. `name` is unlocked with its passphrase.
  ImageInMemory(const QemuImages& images, const std::string& name,
                const std::string& backing = "");

  // The files: the image and its external data file.
  const std::vector<Bytes>& files() const { return files_; }

  // Opens the active state of the image to write, on the files that `disks`
  // were given. With `header` in place of the one that the file has.
  std::unique_ptr<qcow2::Qcow2Image> Open(
      CrashDisks& disks,
      const std::optional<qcow2::Header>& header = std::nullopt) const;
  // The same on any device that holds the image, with its data.
  std::unique_ptr<qcow2::Qcow2Image> Open(
      std::unique_ptr<ResizableDevice> file) const;
  // The same to read, on files that must outlive it. `snapshot` is an id or a
  // name; the active state without one.
  std::unique_ptr<BlockDevice> OpenReadOnly(
      const std::vector<std::span<const std::byte>>& files,
      const std::string& snapshot = "") const;

  // The whole content of what OpenReadOnly() opens.
  Bytes Content(const std::vector<Bytes>& files,
                const std::string& snapshot = "") const;

  // Puts files back where the image was, for QEMU to look at.
  void Store(const std::vector<std::span<const std::byte>>& files) const;
  // With which QEMU's tools open what is stored.
  std::vector<std::string> OpenArguments() const {
    return images_.OpenArguments(name_);
  }

 private:
  void Unlock(BlockDevice& image, const qcow2::Header& header);
  qcow2::Qcow2Image::Parts CommonParts(BlockDevice& image) const;

  const QemuImages& images_;
  const std::string name_;
  std::vector<Bytes> files_;
  std::vector<std::filesystem::path> paths_;
  std::optional<Bytes> backing_;
  std::optional<crypto::CipherSpec> spec_;
  crypto::SecretBytes key_;
};

// A writable image under a model: every change is made to both. Errors of the
// image are let through; the model knows then that the change may be there or
// not.
class ModelledImage {
 public:
  using OpenDisk = std::function<std::unique_ptr<WritableDevice>()>;

  // Borrows all.
  ModelledImage(const ImageInMemory& image, CrashDisks& disks,
                SyncedModel& model)
      : ModelledImage([&] { return image.Open(disks); }, disks, model) {}
  // Of any stack over `disks`.
  ModelledImage(OpenDisk open, const CrashDisks& disks, SyncedModel& model);

  uint64_t sectors() const { return model_.sectors(); }
  void Write(uint64_t first_sector, uint64_t sectors);
  void WriteZeroes(uint64_t first_sector, uint64_t sectors, ZeroMode mode);
  void Flush();
  // Flushes, closes and opens it again.
  void Reopen();
  void Close() { device_.reset(); }

  Bytes Content();

 private:
  const OpenDisk open_;
  const CrashDisks& disks_;
  SyncedModel& model_;
  std::unique_ptr<WritableDevice> device_;
};

// A judge of what power cuts leave of the image.
CrashJudge JudgeOf(const ImageInMemory& image, SyncedModel& model,
                   uint64_t qemu_every);

// Takes a snapshot with qemu-img.
void TakeSnapshot(const QemuImages& images, const std::string& image,
                  const std::string& name);

// The spans of whole files.
std::vector<std::span<const std::byte>> Spans(const std::vector<Bytes>& files);

}  // namespace pellucid

#endif  // PELLUCID_TESTS_ENGINE_WRITABLE_IMAGE_FIXTURE_H_
