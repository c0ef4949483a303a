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

// Opens the container that holds a detached header; it may be a qcow2 image,
// which may even be encrypted itself.
std::unique_ptr<BlockDevice> OpenHeaderContainer(
    const OpenOptions& options, PassphraseSource& passphrases) {
  auto layers = OpenLayers(options.header, options.header_format, "", options,
                           IfNamedFileFails::kThrow);
  UnlockLayers(*layers, std::nullopt, passphrases);
  return AssembleLayers(std::move(layers));
}

void CheckOptions(const OpenOptions& options) {
  if (!options.header.empty() && options.encryption == Encryption::kNone) {
    throw UsageError(fmt::format(
        "{}: --header makes no sense with --encryption none: the payload's "
        "ciphertext needs no header",
        options.header.native()));
  }
}

}  // namespace

OpenedImage OpenImage(const OpenOptions& options,
                      PassphraseSource& passphrases) {
  CheckOptions(options);
  auto layers = OpenLayers(options.image, options.format, options.snapshot,
                           options, IfNamedFileFails::kThrow);
  OpenedImage opened;
  opened.image_stat = layers->file->host_stat();
  for (const ImageLayer* layer = layers.get(); layer != nullptr;
       layer = layer->backing.get()) {
    std::ranges::copy(layer->warnings, std::back_inserter(opened.warnings));
  }
  if (options.encryption == Encryption::kNone) {
    opened.device = AssembleLayers(std::move(layers));
    return opened;
  }
  // --keyslot is for the layer that the user sees first.
  std::optional<unsigned> keyslot = options.keyslot;
  UnlockLayers(*layers, keyslot, passphrases);
  if (layers->embedded_luks) keyslot.reset();
  std::unique_ptr<BlockDevice> content = AssembleLayers(std::move(layers));

  const std::string image = options.image.native();
  std::unique_ptr<BlockDevice> header_device;  // Null without --header.
  std::optional<luks::LocatedHeader> located;
  if (!options.header.empty()) {
    header_device = OpenHeaderContainer(options, passphrases);
    located =
        luks::ReadLuksHeader(*header_device, 0, header_device->size(),
                             options.header.native(), luks::Place::kDetached);
  } else if (luks::IsLuksVolume(*content)) {
    located = luks::ReadLuksHeader(*content, 0, content->size(), image,
                                   luks::Place::kInPlace);
  }
  if (!located) {
    opened.device = std::move(content);
    return opened;
  }
  luks::CheckPayload(*located, content->size(), image);
  std::ranges::copy(located->header.warnings,
                    std::back_inserter(opened.warnings));
  const crypto::SecretBytes key =
      luks::Unlock(*located, located->file_name, keyslot, passphrases);
  opened.device = std::make_unique<luks::LuksDevice>(
      std::move(content), located->header, key.bytes());
  return opened;
}

}  // namespace pellucid
