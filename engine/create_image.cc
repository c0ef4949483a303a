#include "engine/create_image.h"

#include <fmt/format.h>

#include <memory>
#include <system_error>
#include <utility>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "engine/luks/luks1_header.h"
#include "engine/named_file.h"
#include "engine/new_file.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

// File offsets end at 2^63, and a header wants its place as well.
constexpr uint64_t kMaxRawSize = (uint64_t{1} << 63) - (uint64_t{1} << 30);

bool IsSameFile(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return a.lexically_normal() == b.lexically_normal() ||
         fs::equivalent(a, b, ignored);
}

void CheckTarget(const fs::path& file, bool overwrite) {
  std::error_code ignored;
  const fs::file_status status = fs::status(file, ignored);
  if (fs::is_block_file(status)) {
    throw UsageError(fmt::format(
        "{}: is a block device, and only files are made; a detached header "
        "for what is on a device can be made with --payload-exists",
        file.native()));
  }
  if (fs::is_directory(status)) {
    throw UsageError(
        fmt::format("{}: is a directory; name a file in it", file.native()));
  }
  if (!overwrite && fs::exists(status)) {
    throw UsageError(fmt::format("{}: exists already; --force overwrites it",
                                 file.native()));
  }
}

// Refuses `target` if it is one of the files that `info` is about.
void RefuseMembers(const fs::path& target, const ImageInfo& info) {
  for (const ImageInfo* member = &info; member != nullptr;
       member = member->backing.get()) {
    const bool is_data_file =
        member->qcow2 && !member->qcow2->data_file.empty() &&
        IsSameFile(target,
                   member->file.parent_path() / member->qcow2->data_file);
    if (is_data_file || IsSameFile(target, member->file)) {
      throw UsageError(
          fmt::format("{}: belongs to the backing file, which must not be "
                      "overwritten; choose another name",
                      target.native()));
    }
    if (!member->backing_error.empty()) {
      throw CorruptImage(member->backing_error);
    }
  }
}

}  // namespace

ImageCreation::ImageCreation(NewImage wanted) : wanted_(std::move(wanted)) {
  CheckCombination();
  CheckFiles();
  if (!wanted_.payload_exists) {
    CheckBacking();
    CheckSize();
  }
  if (wanted_.luks) {
    wanted_.luks->layout = !wanted_.header.empty() ? luks::Layout::kDetached
                           : wanted_.format == ContainerFormat::kQcow2
                               ? luks::Layout::kEmbedded
                               : luks::Layout::kInPlace;
    luks::CheckFormatOptions(*wanted_.luks);
  }
  if (!wanted_.payload_exists && wanted_.format == ContainerFormat::kQcow2) {
    PlanQcow2();
  }
}

void ImageCreation::CheckCombination() const {
  const auto refuse = [&](const char* why) {
    throw UsageError(fmt::format("{}: {}", wanted_.image.native(), why));
  };
  const bool detached = !wanted_.header.empty();
  const bool embedded =
      !detached && wanted_.luks && wanted_.format == ContainerFormat::kQcow2;
  if (wanted_.payload_exists && !detached) {
    refuse("a payload that exists needs a detached header");
  }
  if (detached && !wanted_.luks) {
    refuse("a detached header is for encryption with luks1 or luks2, not none");
  }
  if (embedded && wanted_.luks->version == 2) {
    refuse(
        "LUKS2 cannot be embedded in qcow2; use LUKS1, a detached LUKS2 "
        "header, or a raw image");
  }
  // It aborts if the stripes of a key are not whole sectors, as with 192 bits.
  if (embedded && uint64_t{wanted_.luks->key_bytes} * luks::kLuks1Stripes %
                          luks::kSectorSize !=
                      0) {
    refuse(
        "QEMU cannot open an image with a volume key of this length; choose a "
        "multiple of 128 bits");
  }
  if (detached && !wanted_.qcow2.backing_file.empty()) {
    refuse(
        "with a new detached header the content of the backing file would "
        "read as noise; make the image without encryption and open it with "
        "the header of its backing file");
  }
}

void ImageCreation::CheckFiles() const {
  if (!wanted_.header.empty()) {
    if (IsSameFile(wanted_.header, wanted_.image)) {
      throw UsageError(fmt::format(
          "{}: is named both as the image and as its detached header",
          wanted_.image.native()));
    }
    CheckTarget(wanted_.header, wanted_.overwrite);
  }
  if (!wanted_.payload_exists) {
    CheckTarget(wanted_.image, wanted_.overwrite);
    return;
  }
  const auto payload =
      FileDevice::Open(wanted_.image, FileDevice::Sharing::kExclusive);
  if (payload->size() < wanted_.luks->sector_size) {
    throw UsageError(fmt::format("{}: has {} bytes, less than one sector of {}",
                                 wanted_.image.native(), payload->size(),
                                 wanted_.luks->sector_size));
  }
}

void ImageCreation::CheckBacking() {
  const std::string& name = wanted_.qcow2.backing_file;
  if (name.empty()) return;
  const NamedFile named =
      ResolveNamedFile(name, wanted_.qcow2.backing_format, wanted_.image);
  OpenOptions options;
  options.image = named.path;
  options.format =
      named.format == "qcow2" ? ContainerFormat::kQcow2 : ContainerFormat::kRaw;
  options.encryption =
      named.format == "luks" ? Encryption::kAuto : Encryption::kNone;
  const ImageInfo info = DescribeImage(options);
  RefuseMembers(wanted_.image, info);
  if (!wanted_.size) wanted_.size = info.virtual_size;
}

void ImageCreation::CheckSize() {
  const std::string name = wanted_.image.native();
  if (!wanted_.size || *wanted_.size == 0) {
    throw UsageError(
        fmt::format("{}: needs a SIZE above 0, such as 10G", name));
  }
  if (*wanted_.size > kMaxRawSize) {
    throw UsageError(
        fmt::format("{}: {} bytes are too many; up to {} are "
                    "possible",
                    name, *wanted_.size, kMaxRawSize));
  }
  const uint64_t sector =
      wanted_.luks ? wanted_.luks->sector_size : luks::kSectorSize;
  size_ = (*wanted_.size + sector - 1) / sector * sector;
}

void ImageCreation::PlanQcow2() {
  wanted_.qcow2.size = size_;
  if (wanted_.luks && wanted_.header.empty()) {
    wanted_.qcow2.crypto_header_bytes = luks::HeaderBytes(*wanted_.luks);
  }
  qcow2_.emplace(wanted_.qcow2, wanted_.image.native());
}

uint64_t ImageCreation::PayloadFileBytes() const {
  if (qcow2_) return qcow2_->file_bytes();
  const bool in_place = wanted_.luks && wanted_.header.empty();
  return size_ + (in_place ? luks::HeaderBytes(*wanted_.luks) : 0);
}

void ImageCreation::WriteImageTo(ResizableDevice& file,
                                 const crypto::SecretBytes& passphrase) const {
  file.Resize(PayloadFileBytes());
  const auto format = [&](WritableDevice& area) {
    luks::FormatHeader(area, *wanted_.luks, passphrase);
  };
  if (qcow2_) {
    qcow2_->WriteTo(file, format);
  } else if (wanted_.luks && wanted_.header.empty()) {
    format(file);
  } else {
    file.Flush();
  }
}

void ImageCreation::Run(const crypto::SecretBytes& passphrase,
                        const std::function<void()>& checkpoint) {
  // Both are opened, and locked, before either is made, and both are complete
  // before either loses its old content.
  std::optional<NewFile> payload;
  std::optional<NewFile> header;
  if (!wanted_.payload_exists) {
    payload.emplace(wanted_.image, wanted_.overwrite);
  }
  if (!wanted_.header.empty()) {
    header.emplace(wanted_.header, wanted_.overwrite);
  }
  if (payload) {
    WriteImageTo(payload->device(), passphrase);
    checkpoint();
  }
  if (header) {
    header->device().Resize(luks::HeaderBytes(*wanted_.luks));
    luks::FormatHeader(header->device(), *wanted_.luks, passphrase);
    checkpoint();
  }
  if (payload) payload->Keep();
  if (header) header->Keep();
}

}  // namespace pellucid
