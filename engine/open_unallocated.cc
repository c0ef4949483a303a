#include "engine/open_unallocated.h"

#include <fmt/format.h>

#include <utility>

#include "engine/errors.h"
#include "engine/image_layers.h"
#include "engine/qcow2/reference_scan.h"
#include "engine/qcow2/unallocated_clusters.h"

namespace pellucid {
namespace {

void CheckLayer(const OpenOptions& options, const ImageLayer& layer) {
  const std::string image = options.image.native();
  if (!layer.qcow2) {
    throw UsageError(fmt::format(
        "{}: is not a qcow2 image and has no unallocated clusters", image));
  }
  if (layer.data_file || layer.qcow2->has(qcow2::kExternalDataFile)) {
    throw Unsupported(fmt::format(
        "{}: has its clusters in an external data file; what is unallocated "
        "there is not supported",
        image));
  }
  if (options.encryption == Encryption::kNone) return;
  const auto refuse = [&](const char* encryption) {
    throw Unsupported(fmt::format(
        "{}: {} decrypts a cluster by its place on the disk, which nothing "
        "tells of an unallocated one; --encryption none shows the ciphertext",
        image, encryption));
  };
  if (layer.qcow2->crypt_method == qcow2::CryptMethod::kAes) {
    refuse("legacy AES");
  }
  if (!options.header.empty()) refuse("a detached LUKS header");
}

}  // namespace

OpenedImage OpenUnallocated(const OpenOptions& options,
                            PassphraseSource& passphrases) {
  CheckOptions(options);
  if (!options.snapshot.empty()) {
    throw UsageError(
        "what is unallocated belongs to no snapshot; leave --snapshot out");
  }
  if (options.partition) {
    throw UsageError(
        "what is unallocated belongs to no partition; leave --partition out");
  }
  OpenOptions reading = options;
  reading.writable = false;
  reading.allow_backing = false;
  const auto layer = OpenLayers(options.image, options.format, "", reading,
                                IfNamedFileFails::kNote);
  CheckLayer(options, *layer);
  OpenedImage opened;
  opened.image_stat = layer->file.host_stat();
  opened.files.push_back(HostFileId::Of(opened.image_stat));
  opened.warnings = layer->warnings;
  const qcow2::Header& header = *layer->qcow2;
  const qcow2::ReferenceScan scan = qcow2::ScanReferences(
      layer->file.device(), options.image.native(), header, layer->snapshots);
  if (scan.corruptions.count() != 0) {
    opened.warnings.push_back(fmt::format(
        "{}: its tables are damaged, so that clusters in use may be among the "
        "unallocated ones; see `pellucid check`",
        options.image.native()));
  }
  if (options.encryption != Encryption::kNone) {
    UnlockLayers(*layer, options.keyslot, passphrases,
                 options.max_kdf_memory);
  }
  opened.device = std::make_unique<qcow2::UnallocatedClusters>(
      std::move(layer->file.read_only), scan.counts, header.cluster_size(),
      ClusterCipher(*layer));
  return opened;
}

}  // namespace pellucid
