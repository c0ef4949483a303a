#include "engine/header_transfer.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>

#include "engine/errors.h"
#include "engine/image_layers.h"
#include "engine/luks/luks2_document.h"
#include "engine/luks_header_file.h"
#include "engine/new_file.h"

namespace pellucid {
namespace {

// Is anything in the first `size` bytes of the place but zeros?
bool HasContent(const luks::WritableHeader& place, uint64_t size) {
  constexpr size_t kPiece = 64 << 10;
  std::vector<std::byte> bytes(kPiece);
  for (uint64_t at = 0; at < size; at += kPiece) {
    const std::span piece =
        std::span(bytes).first(std::min<uint64_t>(kPiece, size - at));
    place.device->Read(place.offset + at, piece);
    const auto is_zero = [](std::byte b) { return b == std::byte{0}; };
    if (!std::ranges::all_of(piece, is_zero)) return true;
  }
  return false;
}

// What no --force can make good.
void CheckFits(const luks::WritableHeader& place, const luks::HeaderCopy& copy,
               const std::optional<luks::HeaderCopy>& present) {
  const std::string& name = place.file_name;
  if (place.place == luks::Place::kEmbedded && copy.version != 1) {
    throw Unsupported(fmt::format(
        "{}: only a LUKS1 header can be embedded in qcow2, not LUKS{}", name,
        copy.version));
  }
  if (copy.used > place.area_bytes) {
    throw UsageError(
        fmt::format("{}: the header takes {} bytes, and there are {} for it",
                    name, copy.used, place.area_bytes));
  }
  if (place.place != luks::Place::kInPlace) return;
  const bool is_header_file = present && present->payload_offset == 0;
  if (copy.payload_offset == 0 && !is_header_file) {
    throw UsageError(fmt::format(
        "{}: the header was made for detached use: its payload begins at byte "
        "0, where the header would go; it works with --header",
        name));
  }
  if (copy.payload_offset != 0 && copy.used > copy.payload_offset) {
    throw UsageError(fmt::format(
        "{}: the header takes {} bytes and its payload begins at byte {}: "
        "there is no room in front of it",
        name, copy.used, copy.payload_offset));
  }
}

// What somebody may want all the same.
void CheckBelongs(const luks::WritableHeader& place,
                  const luks::HeaderCopy& copy,
                  const std::optional<luks::HeaderCopy>& present) {
  const std::string& name = place.file_name;
  if (!present) {
    if (!HasContent(place, std::min(copy.used, place.area_bytes))) return;
    throw UsageError(fmt::format(
        "{}: what is at the header's place is neither zeros nor an intact LUKS "
        "header; --force overwrites it",
        name));
  }
  if (present->uuid != copy.uuid) {
    throw UsageError(fmt::format(
        "{}: holds the LUKS header of another volume (UUID {}, not {}); "
        "--force overwrites it, and what it opens is lost",
        name, present->uuid, copy.uuid));
  }
  if (present->version != copy.version) {
    throw UsageError(fmt::format(
        "{}: holds a LUKS{} header, and this is LUKS{}; --force overwrites it",
        name, present->version, copy.version));
  }
  if (present->volume_digest != copy.volume_digest) {
    throw UsageError(fmt::format(
        "{}: holds a LUKS header with the same UUID for another volume key, "
        "as after a reencryption; --force overwrites it, and what it opens is "
        "lost",
        name));
  }
  if (present->payload_offset != copy.payload_offset &&
      place.place != luks::Place::kEmbedded) {
    throw UsageError(fmt::format(
        "{}: its payload begins at byte {}, and for this header at byte {}; "
        "--force overwrites it",
        name, present->payload_offset, copy.payload_offset));
  }
}

// Where the guest sees zeros that the data file does not store, its bytes
// decrypt to noise without the qcow2 image.
bool HasHoles(std::unique_ptr<ImageLayer> layers) {
  const std::unique_ptr<BlockDevice> guest =
      AssembleLayers(std::move(layers)).device;
  for (uint64_t at = 0; at < guest->size();) {
    const Extent extent = guest->ExtentAt(at, guest->size() - at);
    if (extent.is_hole) return true;
    at += extent.length;
  }
  return false;
}

void CheckRawDataFile(const OpenOptions& options, DetachedHeader& detached) {
  const std::string name = options.image.native();
  auto layers = OpenLayers(options.image, options.format, "", options,
                           IfNamedFileFails::kThrow);
  const qcow2::Header& header = *layers->qcow2;
  const bool is_raw =
      header.has(qcow2::kExternalDataFile) &&
      (header.autoclear_features & qcow2::kRawExternalData) != 0;
  if (!is_raw) {
    throw Unsupported(fmt::format(
        "{}: not supported: its clusters are encrypted by their place in the "
        "qcow2 file, so that no detached header opens them; `pellucid header "
        "backup` copies the header",
        name));
  }
  const std::string data_file = header.data_file;
  if (!HasHoles(std::move(layers))) return;
  detached.warnings.push_back(fmt::format(
      "{}: parts of the disk are not stored and read as zeros; through the "
      "detached header and {} they read as noise",
      name, data_file));
}

}  // namespace

DetachedHeader CopyHeaderOf(const OpenOptions& options) {
  const ReadableHeaderFile opened = OpenHeaderForReading(options);
  return {.copy = luks::CopyHeader(opened.located, opened.range.area_bytes),
          .warnings = opened.located.header.warnings};
}

DetachedHeader DetachHeaderOf(const OpenOptions& options) {
  DetachedHeader detached;
  {
    const ReadableHeaderFile opened = OpenHeaderForReading(options);
    detached.copy = luks::CopyHeader(opened.located, opened.range.area_bytes);
    detached.warnings = opened.located.header.warnings;
    if (opened.range.place != luks::Place::kEmbedded) return detached;
  }
  CheckRawDataFile(options, detached);
  detached.copy.payload_offset = 0;
  detached.copy.luks1.payload_offset = 0;
  return detached;
}

void WriteHeaderFile(const std::filesystem::path& file,
                     const luks::HeaderCopy& copy, bool overwrite) {
  NewFile made(file, overwrite);
  WritableFileDevice& device = made.device();
  if (device.size() < copy.size) device.Resize(copy.size);
  luks::WriteHeaderCopy({.device = &device,
                         .offset = 0,
                         .area_bytes = copy.size,
                         .file_name = file.native(),
                         .place = luks::Place::kDetached},
                        copy, std::nullopt);
  made.Keep();
}

void RestoreHeader(const OpenOptions& options, const luks::HeaderCopy& copy,
                   Target target, bool force) {
  WritableHeaderFile opened = OpenHeaderSpaceForWriting(options);
  luks::WritableHeader& place = opened.header;
  if (target == Target::kInFrontOnly && place.place != luks::Place::kInPlace) {
    throw UsageError(fmt::format(
        "{}: a header can be attached to a raw volume only", place.file_name));
  }
  const auto present = luks::CopyHeaderIfReadable(place);
  if (!force) CheckBelongs(place, copy, present);
  const bool grows = opened.file && place.place == luks::Place::kDetached &&
                     place.area_bytes < copy.size;
  if (grows) place.area_bytes = copy.size;
  CheckFits(place, copy, present);
  // A file that is refused keeps its size.
  if (grows) opened.file->Resize(copy.size);
  luks::WriteHeaderCopy(place, copy, present);
}

bool RepairHeader(const OpenOptions& options, bool force) {
  const WritableHeaderFile opened = force ? OpenHeaderSpaceForWriting(options)
                                          : OpenHeaderForWriting(options);
  const luks::WritableHeader& place = opened.header;
  const luks::LocatedHeader located =
      luks::ReadLuksHeader(*place.device, place.offset, place.area_bytes,
                           place.file_name, luks::Place::kDetached);
  // There is one copy of LUKS1, and it has just been read.
  if (located.header.version == 1) return false;
  return luks::Luks2Document(place).Repair();
}

}  // namespace pellucid
