#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "engine/device_window.h"
#include "engine/disk_partition.h"
#include "engine/errors.h"
#include "engine/image_layers.h"
#include "engine/luks/located_header.h"
#include "engine/open_image.h"
#include "engine/qcow2/allocation.h"

namespace pellucid {
namespace {

uint64_t DiskSizeOf(const LayerFile& file) {
  return static_cast<uint64_t>(file.host_stat().st_blocks) * 512;
}

Qcow2Info DescribeQcow2(const ImageLayer& layer) {
  const qcow2::Header& header = *layer.qcow2;
  Qcow2Info info;
  info.version = header.version;
  info.cluster_size = header.cluster_size();
  info.refcount_bits = 1U << header.refcount_order;
  info.extended_l2 = header.has(qcow2::kExtendedL2);
  info.lazy_refcounts =
      (header.compatible_features & qcow2::kLazyRefcounts) != 0;
  info.dirty = header.has(qcow2::kDirty);
  info.corrupt = header.has(qcow2::kCorrupt);
  info.compression = header.compression_type == qcow2::CompressionType::kZstd
                         ? "zstd"
                         : "zlib";
  constexpr std::array kMethods = {"none", "aes", "luks"};
  info.encryption = kMethods.at(static_cast<size_t>(header.crypt_method));
  if (layer.embedded_luks) {
    info.luks = luks::Describe(*layer.embedded_luks, luks::Place::kEmbedded);
  }
  info.backing_file = header.backing_file;
  info.backing_format = header.backing_format;
  if (header.has(qcow2::kExternalDataFile)) {
    info.data_file = header.data_file;
    info.data_file_raw =
        (header.autoclear_features & qcow2::kRawExternalData) != 0;
    info.data_file_path = layer.data_file_path;
  }
  if ((header.autoclear_features & qcow2::kBitmapsConsistent) != 0) {
    info.bitmaps = header.nb_bitmaps;
  }
  for (const qcow2::Snapshot& snapshot : layer.snapshots) {
    info.snapshots.push_back(snapshot.info);
  }
  const qcow2::Allocation allocation =
      qcow2::CountAllocation(layer.file.device(), header);
  info.total_clusters = header.size / header.cluster_size() +
                        (header.size % header.cluster_size() != 0);
  info.allocated_clusters = allocation.clusters;
  info.compressed_clusters = allocation.compressed;
  info.unreadable_tables = allocation.unreadable;
  return info;
}

std::vector<std::string> WarningsAbout(const Qcow2Info& qcow2) {
  std::vector<std::string> warnings;
  if (qcow2.dirty) {
    warnings.push_back("was not closed properly: refcounts may be wrong");
  }
  if (qcow2.corrupt) {
    warnings.push_back("is marked as corrupt: it cannot be written to");
  }
  if (qcow2.encryption == "aes") {
    warnings.push_back(
        "the legacy AES of qcow2 protects little: the passphrase itself, cut "
        "to 16 bytes, is the key, and a wrong one goes unnoticed");
  }
  if (!qcow2.unreadable_tables.empty()) {
    warnings.push_back(fmt::format(
        "what is allocated is counted without tables that cannot be read: {}",
        qcow2.unreadable_tables));
  }
  if (qcow2.encryption != "none" && qcow2.compressed_clusters != 0) {
    warnings.push_back(
        fmt::format("{} compressed clusters lie in the encrypted image as "
                    "plaintext",
                    qcow2.compressed_clusters));
  }
  return warnings;
}

ImageInfo DescribeLayer(const ImageLayer& layer) {
  ImageInfo info;
  info.file = layer.path;
  info.format = layer.qcow2 ? "qcow2" : "raw";
  info.file_size = layer.file.device().size();
  info.disk_size = DiskSizeOf(layer.file);
  if (layer.data_file) info.disk_size += DiskSizeOf(layer.data_file);
  info.virtual_size = layer.file.device().size();
  if (layer.qcow2) {
    info.virtual_size = layer.shown_snapshot
                            ? layer.shown_snapshot->info.virtual_size
                            : layer.qcow2->size;
    info.qcow2 = DescribeQcow2(layer);
    info.warnings = WarningsAbout(*info.qcow2);
  }
  if (layer.luks_volume) {
    info.luks = luks::Describe(*layer.luks_volume, luks::Place::kInPlace);
    info.virtual_size =
        luks::PlaintextBytes(layer.luks_volume->header, info.file_size);
  }
  info.backing_error = layer.backing_error;
  if (layer.backing) {
    info.backing = std::make_unique<ImageInfo>(DescribeLayer(*layer.backing));
  }
  return info;
}

bool NeedsNoPassphrase(const ImageLayer& layer) {
  for (const ImageLayer* l = &layer; l != nullptr; l = l->backing.get()) {
    if (!l->backing_error.empty() || l->luks_volume) return false;
    if (l->qcow2 && l->qcow2->crypt_method != qcow2::CryptMethod::kNone) {
      return false;
    }
  }
  return true;
}

// The numbers of the partitions that can be opened further. Nothing of it may
// keep the rest from being described.
std::vector<unsigned> LuksPartitionsOf(BlockDevice& disk) {
  std::vector<unsigned> numbers;
  try {
    const auto table = ReadPartitionTable(disk);
    if (!table) return numbers;
    // A look at one may cost ten compressed clusters, and a table can have
    // thousands.
    constexpr size_t kMostLookedAt = 16;
    for (const Partition& partition :
         std::span(table->partitions)
             .first(std::min(table->partitions.size(), kMostLookedAt))) {
      WindowReader volume(disk, partition.offset, partition.size);
      if (luks::IsLuksVolume(volume)) numbers.push_back(partition.number);
    }
  } catch (const Error&) {
    // What cannot be read is told by who reads it.
  }
  return numbers;
}

// Narrows `info` of the disk that `layers` are to options.partition.
void DescribePartition(std::unique_ptr<ImageLayer> layers,
                       const OpenOptions& options, ImageInfo& info) {
  const std::string image = options.image.native();
  std::unique_ptr<BlockDevice> disk;
  if (options.header.empty() && NeedsNoPassphrase(*layers)) {
    disk = AssembleLayers(std::move(layers)).device;
  }
  if (!disk || luks::IsLuksVolume(*disk)) {
    throw UsageError(fmt::format(
        "{}: is encrypted as a whole: its partitions cannot be seen without a "
        "passphrase, which is not asked for here; leave --partition out",
        image));
  }
  info.partition = FindPartition(*disk, *options.partition, image);
  info.virtual_size = info.partition->size;
  DiskPartition volume(std::move(disk), *info.partition);
  const ExpectedHeader& expected = options.expected_header;
  if (options.encryption == Encryption::kNone) return;
  if (!luks::IsLuksVolume(volume)) {
    if (expected.any()) ThrowNoHeader(image);
    return;
  }
  const auto located = luks::ReadLuksHeader(
      volume, 0, volume.size(), PartitionName(options), luks::Place::kInPlace);
  CheckUuid(expected, located.header, located.file_name);
  luks::CheckPayload(located, volume.size(), located.file_name);
  info.luks = luks::Describe(located, luks::Place::kInPlace);
  info.luks->header_file = options.image;
  info.luks->header_offset = info.partition->offset;
  info.virtual_size = luks::PlaintextBytes(located.header, volume.size());
}

}  // namespace

ImageInfo DescribeImage(const OpenOptions& options) {
  CheckOptions(options);
  const auto open = [&](const std::filesystem::path& path,
                        ContainerFormat format, const std::string& snapshot) {
    return OpenLayers(path, format, snapshot, options, IfNamedFileFails::kNote);
  };
  auto layers = open(options.image, options.format, options.snapshot);
  ImageInfo info = DescribeLayer(*layers);
  if (options.partition) {
    DescribePartition(std::move(layers), options, info);
    return info;
  }
  const bool detached = !options.header.empty();
  if (options.encryption == Encryption::kNone) return info;
  const ExpectedHeader& expected = options.expected_header;
  const std::string image = options.image.native();
  if (!detached && layers->embedded_luks) {
    CheckUuid(expected, layers->embedded_luks->header, image);
    return info;
  }
  auto holder = detached ? open(options.header, options.header_format, "")
                         : std::move(layers);
  // A LUKS header inside an encrypted container cannot be seen without a key.
  if (detached) {
    CheckHeaderFile(expected, holder->file.device(), options.header.native());
  }
  const auto without_header = [&] {
    if (!expected.uuid.empty()) ThrowNoHeader(image);
    return std::move(info);
  };
  if (!NeedsNoPassphrase(*holder)) return without_header();
  const auto device = AssembleLayers(std::move(holder)).device;
  if (!detached && !luks::IsLuksVolume(*device)) {
    info.luks_partitions = LuksPartitionsOf(*device);
    return without_header();
  }
  const luks::Place place =
      detached ? luks::Place::kDetached : luks::Place::kInPlace;
  const auto located =
      luks::ReadLuksHeader(*device, 0, device->size(),
                           detached ? options.header.native() : image, place);
  CheckUuid(expected, located.header, located.file_name);
  luks::CheckPayload(located, info.virtual_size, info.file.native());
  info.luks = luks::Describe(located, place);
  info.virtual_size = luks::PlaintextBytes(located.header, info.virtual_size);
  return info;
}

}  // namespace pellucid
