#include "engine/luks_header_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <utility>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "engine/image_layers.h"
#include "engine/qcow2/header.h"

namespace pellucid {
namespace {

bool IsDetached(const OpenOptions& options) { return !options.header.empty(); }

const std::filesystem::path& HolderOf(const OpenOptions& options) {
  return IsDetached(options) ? options.header : options.image;
}

bool HolderIsQcow2(BlockDevice& file, const OpenOptions& options) {
  return IsQcow2(file, HolderOf(options),
                 IsDetached(options) ? options.header_format : options.format,
                 options);
}

HeaderRange FindInQcow2(BlockDevice& file, const OpenOptions& options) {
  const std::string name = HolderOf(options).native();
  const qcow2::Header header = qcow2::ReadHeader(file, name);
  if (header.crypt_method == qcow2::CryptMethod::kAes) {
    throw UsageError(fmt::format(
        "{}: legacy AES has no header and no keyslots: the passphrase is the "
        "key",
        name));
  }
  if (IsDetached(options) || !header.crypto_header) {
    throw Unsupported(fmt::format(
        "{}: not supported here: a LUKS header among the guest data of a qcow2 "
        "image",
        name));
  }
  return {.offset = header.crypto_header->offset,
          .area_bytes = header.crypto_header->length,
          .place = luks::Place::kEmbedded};
}

// A detached header that is named as an image has its payload at 0; anything
// else has the payload behind the header.
luks::Place PlaceInRaw(BlockDevice& file, const std::string& name,
                       bool detached) {
  if (detached) return luks::Place::kDetached;
  const luks::LocatedHeader located =
      luks::ReadLuksHeader(file, 0, file.size(), name, luks::Place::kDetached);
  return located.header.segments.front().offset == 0 ? luks::Place::kDetached
                                                     : luks::Place::kInPlace;
}

// The qcow2 file `opened` as that which a header in it may be written through.
void GuardQcow2(WritableHeaderFile& opened) {
  const std::string& name = opened.header.file_name;
  const qcow2::Header header = qcow2::ReadHeader(*opened.file, name);
  if (header.has(qcow2::kCorrupt)) {
    throw CorruptImage(fmt::format(
        "{}: is marked as corrupt and therefore not changed; repair it with "
        "`pellucid check --repair all {}`",
        name, name));
  }
  opened.guard = std::make_unique<AutoclearOnWrite>(*opened.file, header);
  opened.header.device = opened.guard.get();
}

// Is the header that `options` mean among the data that the image `file` shows,
// of a guest or of a partition, not in a place of its own?
bool IsAmongGuestData(BlockDevice& file, const OpenOptions& options) {
  if (options.partition) {
    if (!IsDetached(options)) return true;
    throw UsageError(
        "a --header is that of the whole image; leave --partition out");
  }
  if (!HolderIsQcow2(file, options)) return false;
  return IsDetached(options) ||
         qcow2::ReadHeader(file, HolderOf(options).native()).crypt_method ==
             qcow2::CryptMethod::kNone;
}

// The layers of the image that holds the header.
std::unique_ptr<ImageLayer> OpenHolderLayers(const OpenOptions& options) {
  return OpenLayers(
      HolderOf(options),
      IsDetached(options) ? options.header_format : options.format, "", options,
      IfNamedFileFails::kThrow);
}

// Without its key an image shows ciphertext, and stores it.
void RefuseEncrypted(const ImageLayer& top) {
  for (const ImageLayer* layer = &top; layer != nullptr;
       layer = layer->backing.get()) {
    if (layer->embedded_luks || layer->luks_volume ||
        (layer->qcow2 &&
         layer->qcow2->crypt_method != qcow2::CryptMethod::kNone)) {
      throw Unsupported(fmt::format(
          "{}: not supported: a LUKS header in an image whose chain is "
          "encrypted below it ({})",
          top.path.native(), layer->path.native()));
    }
  }
}

// How `options` call what holds the header.
std::string NameOf(const OpenOptions& options) {
  return options.partition ? PartitionName(options)
                           : HolderOf(options).native();
}

WritableHeaderFile OpenAmongGuestData(const OpenOptions& options,
                                      HeaderRange (*find)(BlockDevice&,
                                                          const OpenOptions&)) {
  OpenOptions writing = options;
  writing.writable = true;
  std::unique_ptr<ImageLayer> layers = OpenHolderLayers(writing);
  WritableHeaderFile opened;
  const std::string name = HolderOf(options).native();
  RefuseEncrypted(*layers);
  if (!layers->snapshots.empty()) {
    opened.warnings.push_back(fmt::format(
        "{}: has {} internal snapshots, which keep the LUKS header as it was "
        "when they were taken: old passphrases still open those",
        name, layers->snapshots.size()));
  }
  if (layers->backing) {
    opened.warnings.push_back(fmt::format(
        "{}: is an overlay: what is changed or removed in its LUKS header "
        "stays "
        "as it was in its backing file, whose passphrases still open that",
        name));
  }
  // What is changed may have been stored where it cannot be overwritten.
  layers->wipes_freed = true;
  AssembledLayers disk = AssembleLayers(std::move(layers));
  if (options.partition) CutToPartition(disk, *options.partition, name);
  opened.guest = disk.TakeWritable();
  OpenOptions inside = options;
  inside.format = inside.header_format = ContainerFormat::kRaw;
  const HeaderRange range = find(*opened.guest, inside);
  opened.header = {.device = opened.guest.get(),
                   .offset = range.offset,
                   .area_bytes = range.area_bytes,
                   .file_name = NameOf(options),
                   .place = range.place};
  return opened;
}

WritableHeaderFile OpenForWriting(const OpenOptions& options,
                                  HeaderRange (*find)(BlockDevice&,
                                                      const OpenOptions&)) {
  WritableHeaderFile opened;
  opened.file = WritableFileDevice::Open(HolderOf(options));
  if (IsAmongGuestData(*opened.file, options)) {
    opened.file.reset();  // With its lock.
    return OpenAmongGuestData(options, find);
  }
  const HeaderRange range = find(*opened.file, options);
  opened.header = {.device = opened.file.get(),
                   .offset = range.offset,
                   .area_bytes = range.area_bytes,
                   .file_name = HolderOf(options).native(),
                   .place = range.place};
  if (range.place == luks::Place::kEmbedded) GuardQcow2(opened);
  return opened;
}

}  // namespace

HeaderRange FindHeaderSpace(BlockDevice& file, const OpenOptions& options) {
  if (HolderIsQcow2(file, options)) return FindInQcow2(file, options);
  return {.offset = 0,
          .area_bytes = file.size(),
          .place = IsDetached(options) ? luks::Place::kDetached
                                       : luks::Place::kInPlace};
}

HeaderRange FindLuksHeader(BlockDevice& file, const OpenOptions& options) {
  HeaderRange range = FindHeaderSpace(file, options);
  if (range.place == luks::Place::kEmbedded) return range;
  const std::string name = HolderOf(options).native();
  if (!luks::IsLuksVolume(file)) {
    throw UsageError(
        fmt::format("{}: there is no LUKS header in it{}", name,
                    IsDetached(options) ? "" : "; name one with --header"));
  }
  range.place = PlaceInRaw(file, name, IsDetached(options));
  return range;
}

WritableHeaderFile OpenHeaderForWriting(const OpenOptions& options) {
  return OpenForWriting(options, FindLuksHeader);
}

WritableHeaderFile OpenHeaderSpaceForWriting(const OpenOptions& options) {
  return OpenForWriting(options, FindHeaderSpace);
}

ReadableHeaderFile OpenHeaderForReading(const OpenOptions& options) {
  const std::string name = HolderOf(options).native();
  ReadableHeaderFile opened;
  opened.file = FileDevice::Open(
      HolderOf(options), options.force_share ? FileDevice::Sharing::kForced
                                             : FileDevice::Sharing::kExclusive);
  OpenOptions inside = options;
  if (IsAmongGuestData(*opened.file, options)) {
    std::unique_ptr<ImageLayer> layers = OpenHolderLayers(options);
    if (options.partition) RefuseEncrypted(*layers);
    AssembledLayers disk = AssembleLayers(std::move(layers));
    if (options.partition) CutToPartition(disk, *options.partition, name);
    opened.file = std::move(disk.device);
    inside.format = inside.header_format = ContainerFormat::kRaw;
  }
  opened.range = FindLuksHeader(*opened.file, inside);
  opened.located = luks::ReadLuksHeader(*opened.file, opened.range.offset,
                                        opened.range.area_bytes,
                                        NameOf(options), opened.range.place);
  return opened;
}

}  // namespace pellucid
