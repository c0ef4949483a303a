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

AssembledLayers OpenLuksVolume(AssembledLayers payload,
                               const std::string& payload_name,
                               const luks::LocatedHeader& located,
                               std::optional<unsigned> keyslot,
                               std::optional<uint64_t> max_kdf_memory,
                               PassphraseSource& passphrases,
                               std::vector<std::string>& warnings) {
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
  if (payload.writable != nullptr) {
    return AssembledLayers::Writable(std::make_unique<luks::LuksDevice>(
        payload.TakeWritable(), located.header, key.bytes()));
  }
  return AssembledLayers::ReadOnly(std::make_unique<luks::LuksDevice>(
      std::move(payload.device), located.header, key.bytes()));
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

}  // namespace

OpenedImage OpenImage(const OpenOptions& options,
                      PassphraseSource& passphrases) {
  CheckOptions(options);
  auto layers = OpenLayers(options.image, options.format, options.snapshot,
                           options, IfNamedFileFails::kThrow);
  OpenedImage opened;
  opened.image_stat = layers->file.host_stat();
  Report(*layers, opened);
  if (options.encryption == Encryption::kNone) {
    opened.device = AssembleLayers(std::move(layers)).device;
    return opened;
  }
  // The header's container may be a qcow2 image, even an encrypted one.
  std::unique_ptr<ImageLayer> header_layers;  // Null without --header.
  if (!options.header.empty()) {
    header_layers = OpenHeaderLayers(options, *layers);
    Report(*header_layers, opened);
  }

  // --keyslot is for the layer that the user sees first.
  std::optional<unsigned> keyslot = options.keyslot;
  UnlockLayers(*layers, keyslot, passphrases, options.max_kdf_memory);
  if (layers->embedded_luks) keyslot.reset();
  AssembledLayers content = AssembleLayers(std::move(layers));

  const std::string image = options.image.native();
  std::unique_ptr<BlockDevice> header_device;
  std::optional<luks::LocatedHeader> located;
  if (header_layers) {
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
  if (located) {
    content =
        OpenLuksVolume(std::move(content), image, *located, keyslot,
                       options.max_kdf_memory, passphrases, opened.warnings);
  }
  opened.device = std::move(content.device);
  opened.writable = content.writable;
  return opened;
}

}  // namespace pellucid
