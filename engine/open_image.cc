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
    opened.files.push_back(HostFileId::Of(layer->file->host_stat()));
    if (layer->data_file) {
      opened.files.push_back(HostFileId::Of(layer->data_file->host_stat()));
    }
    std::ranges::copy(layer->warnings, std::back_inserter(opened.warnings));
    if (layer->luks_volume) {
      std::ranges::copy(layer->luks_volume->header.warnings,
                        std::back_inserter(opened.warnings));
    }
  }
}

std::unique_ptr<BlockDevice> OpenLuksVolume(
    std::unique_ptr<BlockDevice> payload, const std::string& payload_name,
    const luks::LocatedHeader& located, std::optional<unsigned> keyslot,
    PassphraseSource& passphrases, std::vector<std::string>& warnings) {
  luks::CheckPayload(located, payload->size(), payload_name);
  std::ranges::copy(located.header.warnings, std::back_inserter(warnings));
  const uint64_t cut = luks::CutBytes(located.header, payload->size());
  if (cut != 0) {
    warnings.push_back(fmt::format(
        "{}: its last {} bytes are not a whole sector and are not shown",
        payload_name, cut));
  }
  const crypto::SecretBytes key =
      luks::Unlock(located, located.file_name, keyslot, passphrases);
  return std::make_unique<luks::LuksDevice>(std::move(payload), located.header,
                                            key.bytes());
}

}  // namespace

OpenedImage OpenImage(const OpenOptions& options,
                      PassphraseSource& passphrases) {
  CheckOptions(options);
  const auto open = [&](const std::filesystem::path& path,
                        ContainerFormat format, const std::string& snapshot) {
    return OpenLayers(path, format, snapshot, options,
                      IfNamedFileFails::kThrow);
  };
  auto layers = open(options.image, options.format, options.snapshot);
  OpenedImage opened;
  opened.image_stat = layers->file->host_stat();
  Report(*layers, opened);
  if (options.encryption == Encryption::kNone) {
    opened.device = AssembleLayers(std::move(layers));
    return opened;
  }
  // The header's container may be a qcow2 image, even an encrypted one.
  std::unique_ptr<ImageLayer> header_layers;  // Null without --header.
  if (!options.header.empty()) {
    header_layers = open(options.header, options.header_format, "");
    Report(*header_layers, opened);
  }

  // --keyslot is for the layer that the user sees first.
  std::optional<unsigned> keyslot = options.keyslot;
  UnlockLayers(*layers, keyslot, passphrases);
  if (layers->embedded_luks) keyslot.reset();
  std::unique_ptr<BlockDevice> content = AssembleLayers(std::move(layers));

  const std::string image = options.image.native();
  std::unique_ptr<BlockDevice> header_device;
  std::optional<luks::LocatedHeader> located;
  if (header_layers) {
    UnlockLayers(*header_layers, std::nullopt, passphrases);
    header_device = AssembleLayers(std::move(header_layers));
    located =
        luks::ReadLuksHeader(*header_device, 0, header_device->size(),
                             options.header.native(), luks::Place::kDetached);
  } else if (luks::IsLuksVolume(*content)) {
    located = luks::ReadLuksHeader(*content, 0, content->size(), image,
                                   luks::Place::kInPlace);
  }
  if (located) {
    content = OpenLuksVolume(std::move(content), image, *located, keyslot,
                             passphrases, opened.warnings);
  }
  opened.device = std::move(content);
  return opened;
}

}  // namespace pellucid
