#include "engine/open_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

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

// One call of OpenImage(): puts one layer on another.
class ImageOpener {
 public:
  ImageOpener(const OpenOptions& options, PassphraseSource& passphrases)
      : options_(options),
        image_(options.image.native()),
        passphrases_(passphrases),
        keyslot_(options.keyslot) {}

  OpenedImage Open() {
    CheckOptions(options_);
    auto layers = OpenLayers(options_.image, options_.format, options_.snapshot,
                             options_, IfNamedFileFails::kThrow);
    opened_.image_stat = layers->file.host_stat();
    Report(*layers, opened_);
    if (!layers->shown_snapshot && !options_.partition) {
      snapshots_ = layers->snapshots;
    }
    if (decrypts()) {
      OpenDecrypted(std::move(layers));
    } else {
      Assemble(std::move(layers));
    }
    if (options_.partition) OpenPartition();
    if (decrypts() && awaits_header_ && options_.expected_header.any()) {
      ThrowNoHeader(image_);
    }
    opened_.device = std::move(content_.device);
    opened_.writable = content_.writable;
    if (!snapshots_.empty()) {
      opened_.snapshots = std::make_unique<SnapshotDisks>(
          *qcow2_, image_, std::move(snapshots_), std::move(luks_layer_));
    }
    return std::move(opened_);
  }

 private:
  bool decrypts() const { return options_.encryption != Encryption::kNone; }

  void Assemble(std::unique_ptr<ImageLayer> layers) {
    content_ = AssembleLayers(std::move(layers));
    qcow2_ = content_.qcow2;
  }

  void OpenDecrypted(std::unique_ptr<ImageLayer> layers) {
    // The header's container may be a qcow2 image, even an encrypted one.
    std::unique_ptr<ImageLayer> header_layers;  // Null without --header.
    if (!options_.header.empty()) {
      header_layers = OpenHeaderLayers(options_, *layers);
      Report(*header_layers, opened_);
      CheckHeaderFile(options_.expected_header, header_layers->file.device(),
                      options_.header.native());
    } else if (layers->embedded_luks) {
      CheckFirstHeader(*layers->embedded_luks);
    }
    UnlockLayers(*layers, keyslot_, passphrases_, options_.max_kdf_memory);
    if (layers->embedded_luks) keyslot_.reset();
    Assemble(std::move(layers));

    if (header_layers) {
      UnlockLayers(*header_layers, std::nullopt, passphrases_,
                   options_.max_kdf_memory);
      const auto file = AssembleLayers(std::move(header_layers)).device;
      const auto located =
          luks::ReadLuksHeader(*file, 0, file->size(), options_.header.native(),
                               luks::Place::kDetached);
      OpenDiskVolume(located, luks::Place::kDetached);
    } else if (luks::IsLuksVolume(*content_.device)) {
      const auto located =
          luks::ReadLuksHeader(*content_.device, 0, content_.device->size(),
                               image_, luks::Place::kInPlace);
      OpenDiskVolume(located, luks::Place::kInPlace);
    }
  }

  // The LUKS volume that all of the disk is, in its snapshots as well.
  void OpenDiskVolume(const luks::LocatedHeader& located, luks::Place place) {
    luks::LuksDevice* const device = OpenVolume(image_, located, place);
    device->set_ciphertext_watch(options_.ciphertext_watch);
    luks_layer_ = {.device = device,
                   .header = located.header,
                   .in_place = place == luks::Place::kInPlace};
  }

  void OpenPartition() {
    CutToPartition(content_, *options_.partition, image_);
    if (!decrypts() || !luks::IsLuksVolume(*content_.device)) return;
    const std::string partition = PartitionName(options_);
    const auto located =
        luks::ReadLuksHeader(*content_.device, 0, content_.device->size(),
                             partition, luks::Place::kInPlace);
    OpenVolume(partition, located, luks::Place::kInPlace);
  }

  // Refuses the header unless it is expected, if it is the first one.
  void CheckFirstHeader(const luks::LocatedHeader& located) {
    if (!std::exchange(awaits_header_, false)) return;
    CheckUuid(options_.expected_header, located.header, located.file_name);
  }

  // Puts the LUKS volume on top; gives its device.
  luks::LuksDevice* OpenVolume(const std::string& payload_name,
                               const luks::LocatedHeader& located,
                               luks::Place place) {
    CheckFirstHeader(located);
    AssembledLayers payload = std::move(content_);
    luks::CheckPayload(located, payload.device->size(), payload_name);
    std::ranges::copy(located.header.warnings,
                      std::back_inserter(opened_.warnings));
    const uint64_t cut = luks::CutBytes(located.header, payload.device->size());
    if (cut != 0) {
      opened_.warnings.push_back(fmt::format(
          "{}: its last {} bytes are not a whole sector and are not shown",
          payload_name, cut));
    }
    const crypto::SecretBytes key =
        luks::Unlock(located, located.file_name, keyslot_, passphrases_,
                     options_.max_kdf_memory);
    keyslot_.reset();
    std::optional<NoiseProbe> probe;
    if (place == luks::Place::kDetached) {
      probe = ProbeOf(*payload.device, located.header);
    }
    if (payload.writable != nullptr) {
      content_ = AssembledLayers::Writable(std::make_unique<luks::LuksDevice>(
          payload.TakeWritable(), located.header, key.bytes()));
    } else {
      content_ = AssembledLayers::ReadOnly(std::make_unique<luks::LuksDevice>(
          std::move(payload.device), located.header, key.bytes()));
    }
    auto* const device = static_cast<luks::LuksDevice*>(content_.device.get());
    if (probe && probe->IsNoise(*device)) {
      opened_.warnings.push_back(fmt::format(
          "{}: looks random when it is decrypted with {}: neither a partition "
          "table nor a file system is to be seen; unless it was filled with "
          "random data, the header may belong to another image, or --format is "
          "wrong",
          payload_name, located.file_name));
    }
    return device;
  }

  const OpenOptions& options_;
  const std::string image_;  // What messages call it.
  PassphraseSource& passphrases_;
  std::optional<unsigned> keyslot_;  // For the first layer that has any.
  bool awaits_header_ = true;  // No header has been held against the expected.
  OpenedImage opened_;
  AssembledLayers content_;             // All that is opened so far.
  qcow2::Qcow2Image* qcow2_ = nullptr;  // In it, if the container is one.
  std::vector<qcow2::Snapshot> snapshots_;
  std::optional<SnapshotDisks::LuksLayer> luks_layer_;
};

}  // namespace

std::string PartitionName(const OpenOptions& options) {
  return fmt::format("{}, partition {}", options.image.native(),
                     *options.partition);
}

OpenedImage OpenImage(const OpenOptions& options,
                      PassphraseSource& passphrases) {
  return ImageOpener(options, passphrases).Open();
}

}  // namespace pellucid
