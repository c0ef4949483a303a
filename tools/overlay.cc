#include "tools/overlay.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "crypto/secret_bytes.h"
#include "engine/create_image.h"
#include "engine/errors.h"
#include "engine/file_device.h"
#include "engine/qcow2/header.h"
#include "tools/kdf_arguments.h"

namespace pellucid::cli {
namespace {

namespace fs = std::filesystem;

// Keeps the passphrase that opened the first layer.
class FirstPassphrase : public PassphraseSource {
 public:
  explicit FirstPassphrase(PassphraseSource& source) : source_(source) {}

  // Empty if no layer was opened by one. Call once.
  crypto::SecretBytes TakeFirst() { return std::move(first_); }

  std::optional<crypto::SecretBytes> Get(std::string_view layer,
                                         unsigned attempt) override {
    auto passphrase = source_.Get(layer, attempt);
    if (passphrase && !accepted_) {
      first_ =
          crypto::SecretBytes(std::span<const std::byte>(passphrase->bytes()));
    }
    return passphrase;
  }
  void Accepted() override {
    accepted_ = true;
    source_.Accepted();
  }

 private:
  PassphraseSource& source_;
  crypto::SecretBytes first_;
  bool accepted_ = false;
};

// Is any file of the chain encrypted in a way that ends with the file? Then
// what a plain overlay gets would be plaintext.
bool HasEncryptedContainer(const ImageInfo& image) {
  for (const ImageInfo* info = &image; info != nullptr;
       info = info->backing.get()) {
    if (info->qcow2 && info->qcow2->encryption != "none") return true;
    // A backing file of the format "luks"; the image's own LUKS volume is
    // above the overlay.
    if (info != &image && info->luks) return true;
  }
  return false;
}

OpenOptions ForReading(OpenOptions options) {
  options.writable = false;
  return options;
}

// An overlay is one of the whole disk, whatever part is shown.
OpenOptions ForReadingAll(OpenOptions options) {
  options.partition.reset();
  return ForReading(std::move(options));
}

void MakeOverlay(const OpenOptions& options, const fs::path& overlay,
                 PassphraseSource& passphrases) {
  ImageCreation creation(OverlayOver(options, overlay));
  crypto::SecretBytes passphrase;
  if (creation.wanted().luks) {
    FirstPassphrase first(passphrases);
    OpenImage(ForReadingAll(options), first);
    passphrase = first.TakeFirst();
  }
  creation.Run(passphrase, [] {});
}

// A new image gets its magic last: what a power cut left of the making has
// none, and holds nothing.
void RefuseUnfinished(const fs::path& overlay) {
  const auto file = FileDevice::Open(overlay, FileDevice::Sharing::kExclusive);
  std::array<std::byte, sizeof qcow2::kMagic> magic{};
  file->Read(0, std::span(magic).first(
                    std::min<uint64_t>(magic.size(), file->size())));
  if (magic != std::array<std::byte, sizeof magic>{}) return;
  throw CorruptImage(fmt::format(
      "{}: {} instead of a qcow2 header: if it is an overlay, its making was "
      "cut off and it holds nothing; delete it then, and it is made anew",
      overlay.native(), file->size() == 0 ? "is empty" : "begins with zeros"));
}

}  // namespace

void CheckOverlayOptions(const OpenOptions& options, const fs::path& overlay) {
  const auto refuse = [&](std::string_view option) {
    throw UsageError(fmt::format("{}: an overlay does not go with {}",
                                 overlay.native(), option));
  };
  if (!options.snapshot.empty()) refuse("--snapshot");
  if (!options.data_file.empty()) refuse("--data-file");
  if (options.keyslot) refuse("--keyslot");
  if (!options.allow_backing) refuse("--no-backing");
  if (options.force_share) refuse("--force-share");
  if (options.encryption == Encryption::kNone) refuse("--encryption none");
}

NewImage OverlayOver(const OpenOptions& options, const fs::path& overlay) {
  const ImageInfo info = DescribeImage(ForReadingAll(options));
  NewImage wanted;
  wanted.image = overlay;
  wanted.qcow2.backing_file =
      fs::absolute(options.image).lexically_normal().native();
  wanted.qcow2.backing_format = info.format;
  if (HasEncryptedContainer(info)) {
    wanted.luks.emplace();
    wanted.luks->version = 1;
    wanted.luks->kdf = KdfArguments().ToKdfCost(1, wanted.luks->hash);
  }
  return wanted;
}

OpenOptions OpenOptionsOfOverlay(const OpenOptions& options,
                                 const fs::path& overlay,
                                 PassphraseSource& passphrases) {
  std::error_code ignored;
  if (!fs::exists(overlay, ignored)) {
    MakeOverlay(options, overlay, passphrases);
  }
  RefuseUnfinished(overlay);
  OpenOptions opening = options;
  opening.image = overlay;
  opening.format = ContainerFormat::kQcow2;
  if (options.expected_header.any()) {
    // It is that of the image; the overlay may have one of its own.
    DescribeImage(ForReading(options));
    opening.expected_header = {};
  }
  OpenOptions reading = ForReadingAll(opening);
  reading.header.clear();
  const ImageInfo info = DescribeImage(reading);
  if (!info.backing ||
      !fs::equivalent(info.backing->file, options.image, ignored)) {
    throw UsageError(fmt::format(
        "{}: is there and is no overlay of {}{}; name a new file",
        overlay.native(), options.image.native(),
        info.backing ? fmt::format(", but of {}", info.backing->file.native())
                     : ""));
  }
  return opening;
}

}  // namespace pellucid::cli
