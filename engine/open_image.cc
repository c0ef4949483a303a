#include "engine/open_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/disk_partition.h"
#include "engine/errors.h"
#include "engine/image_layers.h"
#include "engine/luks/located_header.h"
#include "engine/luks/luks_device.h"
#include "engine/luks/unlock.h"
#include "engine/noise_probe.h"

namespace pellucid {
namespace {

// Notes which files the layers are and what is wrong with them.
void Report(const ImageLayer& top, OpenedImage& opened) {
  for (const ImageLayer* layer = &top; layer != nullptr;
       layer = layer->backing.get()) {
    opened.files.push_back(HostFileId::Of(layer->file.host_stat()));
    if (layer->data_file) {
      opened.files.push_back(HostFileId::Of(layer->data_file.host_stat()));
    }
    std::ranges::copy(layer->warnings, std::back_inserter(opened.warnings));
    if (layer->luks_volume) {
      std::ranges::copy(layer->luks_volume->header.warnings,
                        std::back_inserter(opened.warnings));
    }
  }
}

// Of the first segment, which is all of the volume but in the middle of a
// reencryption.
NoiseProbe ProbeOf(BlockDevice& payload, const luks::VolumeHeader& header) {
  const luks::Segment& first = header.segments.front();
  return {payload, first.offset, first.bytes(payload.size())};
}

// Puts the LUKS volume on top of `content`; gives its device.
luks::LuksDevice* OpenLuksVolume(AssembledLayers& content,
                                 const std::string& payload_name,
                                 const luks::LocatedHeader& located,
                                 bool detached, std::optional<unsigned> keyslot,
                                 std::optional<uint64_t> max_kdf_memory,
                                 PassphraseSource& passphrases,
                                 const CiphertextWatch& watch,
                                 std::vector<std::string>& warnings) {
  AssembledLayers payload = std::move(content);
  luks::CheckPayload(located, payload.device->size(), payload_name);
  std::ranges::copy(located.header.warnings, std::back_inserter(warnings));
  const uint64_t cut = luks::CutBytes(located.header, payload.device->size());
  if (cut != 0) {
    warnings.push_back(fmt::format(
        "{}: its last {} bytes are not a whole sector and are not shown",
        payload_name, cut));
  }
  const crypto::SecretBytes key = luks::Unlock(
      located, located.file_name, keyslot, passphrases, max_kdf_memory);
  std::optional<NoiseProbe> probe;
  if (detached) probe = ProbeOf(*payload.device, located.header);
  if (payload.writable != nullptr) {
    content = AssembledLayers::Writable(std::make_unique<luks::LuksDevice>(
        payload.TakeWritable(), located.header, key.bytes()));
  } else {
    content = AssembledLayers::ReadOnly(std::make_unique<luks::LuksDevice>(
        std::move(payload.device), located.header, key.bytes()));
  }
  auto* const device = static_cast<luks::LuksDevice*>(content.device.get());
  device->set_ciphertext_watch(watch);
  if (probe && probe->IsNoise(*device)) {
    warnings.push_back(fmt::format(
        "{}: looks random when it is decrypted with {}: neither a partition "
        "table nor a file system is to be seen; unless it was filled with "
        "random data, the header may belong to another image, or --format is "
        "wrong",
        payload_name, located.file_name));
  }
  return device;
}

// The layers of the detached header, for reading.
std::unique_ptr<ImageLayer> OpenHeaderLayers(const OpenOptions& options,
                                             const ImageLayer& image) {
  struct stat header;
  if (options.writable && stat(options.header.c_str(), &header) == 0 &&
      HostFileId::Of(header) == HostFileId::Of(image.file.host_stat())) {
    // Our own lock would be in the way.
    throw Unsupported(fmt::format(
        "{}: writing is not supported with --header naming the image itself; "
        "leave --header out, or use --read-only",
        options.image.native()));
  }
  OpenOptions reading = options;
  reading.writable = false;
  return OpenLayers(options.header, options.header_format, "", reading,
                    IfNamedFileFails::kThrow);
}

// Leaves only the partition of the disk.
void CutToPartition(AssembledLayers& content, const Partition& partition) {
  if (content.writable != nullptr) {
    content = AssembledLayers::Writable(
        std::make_unique<DiskPartition>(content.TakeWritable(), partition));
  } else {
    content = AssembledLayers::ReadOnly(
        std::make_unique<DiskPartition>(std::move(content.device), partition));
  }
}

}  // namespace

std::string PartitionName(const OpenOptions& options) {
  return fmt::format("{}, partition {}", options.image.native(),
                     *options.partition);
}

OpenedImage OpenImage(const OpenOptions& options,
                      PassphraseSource& passphrases) {
  CheckOptions(options);
  auto layers = OpenLayers(options.image, options.format, options.snapshot,
                           options, IfNamedFileFails::kThrow);
  OpenedImage opened;
  opened.image_stat = layers->file.host_stat();
  Report(*layers, opened);
  std::vector<qcow2::Snapshot> snapshots;
  if (!layers->shown_snapshot && !options.partition) {
    snapshots = layers->snapshots;
  }
  const std::string image = options.image.native();
  std::optional<SnapshotDisks::LuksLayer> luks_layer;
  const auto cut_to_partition = [&](AssembledLayers& content) {
    CutToPartition(content,
                   FindPartition(*content.device, *options.partition, image));
  };
  const auto finish = [&](AssembledLayers content, qcow2::Qcow2Image* qcow2) {
    opened.device = std::move(content.device);
    opened.writable = content.writable;
    if (!snapshots.empty()) {
      opened.snapshots = std::make_unique<SnapshotDisks>(
          *qcow2, image, std::move(snapshots), std::move(luks_layer));
    }
    return std::move(opened);
  };
  if (options.encryption == Encryption::kNone) {
    AssembledLayers content = AssembleLayers(std::move(layers));
    qcow2::Qcow2Image* const qcow2 = content.qcow2;
    if (options.partition) cut_to_partition(content);
    return finish(std::move(content), qcow2);
  }
  // The header's container may be a qcow2 image, even an encrypted one.
  std::unique_ptr<ImageLayer> header_layers;  // Null without --header.
  if (!options.header.empty()) {
    header_layers = OpenHeaderLayers(options, *layers);
    Report(*header_layers, opened);
  }

  const ExpectedHeader& expected = options.expected_header;
  if (header_layers) {
    CheckHeaderFile(expected, header_layers->file.device(),
                    options.header.native());
  } else if (layers->embedded_luks) {
    CheckUuid(expected, layers->embedded_luks->header, options.image.native());
  }
  // That of a LUKS volume above the container has still to be looked at.
  bool expects_volume = header_layers || !layers->embedded_luks;

  // --keyslot is for the layer that the user sees first.
  std::optional<unsigned> keyslot = options.keyslot;
  UnlockLayers(*layers, keyslot, passphrases, options.max_kdf_memory);
  if (layers->embedded_luks) keyslot.reset();
  AssembledLayers content = AssembleLayers(std::move(layers));
  qcow2::Qcow2Image* const qcow2 = content.qcow2;

  std::unique_ptr<BlockDevice> header_device;
  std::optional<luks::LocatedHeader> located;
  const bool detached = header_layers != nullptr;
  if (detached) {
    UnlockLayers(*header_layers, std::nullopt, passphrases,
                 options.max_kdf_memory);
    header_device = AssembleLayers(std::move(header_layers)).device;
    located =
        luks::ReadLuksHeader(*header_device, 0, header_device->size(),
                             options.header.native(), luks::Place::kDetached);
  } else if (luks::IsLuksVolume(*content.device)) {
    located = luks::ReadLuksHeader(*content.device, 0, content.device->size(),
                                   image, luks::Place::kInPlace);
  }
  const auto check_uuid = [&](const luks::LocatedHeader& header) {
    if (std::exchange(expects_volume, false)) {
      CheckUuid(expected, header.header, header.file_name);
    }
  };
  if (located) {
    check_uuid(*located);
    luks::LuksDevice* const device = OpenLuksVolume(
        content, image, *located, detached, keyslot, options.max_kdf_memory,
        passphrases, options.ciphertext_watch, opened.warnings);
    luks_layer = {.device = device,
                  .header = located->header,
                  .in_place = header_device == nullptr};
    keyslot.reset();
  }
  if (options.partition) {
    cut_to_partition(content);
    if (luks::IsLuksVolume(*content.device)) {
      const std::string partition = PartitionName(options);
      const auto inner =
          luks::ReadLuksHeader(*content.device, 0, content.device->size(),
                               partition, luks::Place::kInPlace);
      check_uuid(inner);
      OpenLuksVolume(content, partition, inner, /*detached=*/false, keyslot,
                     options.max_kdf_memory, passphrases, {}, opened.warnings);
    }
  }
  if (expects_volume && expected.any()) ThrowNoHeader(image);
  return finish(std::move(content), qcow2);
}

}  // namespace pellucid
