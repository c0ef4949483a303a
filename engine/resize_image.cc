#include "engine/resize_image.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "engine/borrowed_device.h"
#include "engine/errors.h"
#include "engine/image_layers.h"
#include "engine/qcow2/qcow2_image.h"
#include "engine/qcow2/resize.h"

namespace pellucid {
namespace {

constexpr uint64_t kSector = 512;
// What QEMU takes as the size of any image: 2^63 - 2^30.
constexpr uint64_t kMaxSize = (uint64_t{1} << 63) - (uint64_t{1} << 30);
// Tables are walked in one direction.
constexpr uint64_t kL2CacheBytes = 1 << 20;

uint64_t SizeAfter(uint64_t before, const NewSize& size,
                   const std::string& name) {
  uint64_t after = size.bytes;
  if (size.kind == NewSize::Kind::kMore) {
    after = size.bytes > UINT64_MAX - before ? UINT64_MAX : before + size.bytes;
  } else if (size.kind == NewSize::Kind::kLess) {
    after = size.bytes > before ? 0 : before - size.bytes;
  }
  if (after == 0) {
    throw UsageError(fmt::format(
        "{}: has {} bytes; nothing would be left of it", name, before));
  }
  if (after > kMaxSize) {
    throw UsageError(
        fmt::format("{}: no image can have {} bytes; {} is the "
                    "most",
                    name, after, kMaxSize));
  }
  if (after < before && !size.may_shrink) {
    throw UsageError(fmt::format(
        "{}: has {} bytes; making it {} would destroy what is behind that; say "
        "--shrink if you mean it, after making the file system in it smaller",
        name, before, after));
  }
  return after;
}

// The size of the container for that of the plaintext in it.
class ContainerSize {
 public:
  // `info` is of the image, `container` its size now.
  ContainerSize(const ImageInfo& info, uint64_t container,
                const std::string& name)
      : name_(name), is_qcow2_(info.qcow2.has_value()) {
    if (!info.luks) return;
    sector_size_ = info.luks->sector_size;
    offset_ = info.luks->payload_offset;
    if (container < offset_ ||
        (container - offset_) / sector_size_ * sector_size_ !=
            info.virtual_size) {
      throw Unsupported(fmt::format(
          "{}: the segments of its LUKS header have a fixed size, which would "
          "have to change with the image; that is not supported",
          name));
    }
  }

  // Throws UsageError.
  uint64_t For(uint64_t plaintext) const {
    const uint64_t unit = std::max(sector_size_, is_qcow2_ ? kSector : 1);
    if (plaintext % unit != 0) {
      throw UsageError(fmt::format("{}: the size {} is not a multiple of {}",
                                   name_, plaintext, unit));
    }
    if (plaintext > kMaxSize - offset_) {
      throw UsageError(
          fmt::format("{}: no image can have {} bytes", name_, plaintext));
    }
    return plaintext + offset_;
  }

 private:
  const std::string& name_;
  const bool is_qcow2_;
  uint64_t sector_size_ = 1;
  uint64_t offset_ = 0;
};

void ResizeRaw(ImageLayer& layer, uint64_t size) {
  if (!S_ISREG(layer.file.host_stat().st_mode)) {
    throw Unsupported(
        fmt::format("{}: is a host block device, which has the size that the "
                    "host gives it",
                    layer.path.native()));
  }
  layer.file.writable->Resize(size);
  layer.file.writable->Flush();
}

// A qcow2 image that grows.
class GrowingImage {
 public:
  // Borrows `layer`.
  explicit GrowingImage(ImageLayer& layer) : layer_(layer) {}

  // `options` say how to unlock it.
  void GrowTo(uint64_t size, const OpenOptions& options,
              PassphraseSource& passphrases) {
    const bool is_encrypted =
        layer_.qcow2->crypt_method != qcow2::CryptMethod::kNone;
    const bool needs_data = NeedsData(size, is_encrypted);
    if (needs_data) {
      UnlockLayers(layer_, options.keyslot, passphrases,
                   options.max_kdf_memory);
    }
    // Its size matters, and with the key its content.
    if (layer_.backing) {
      backing_ = AssembleLayers(std::move(layer_.backing)).device;
    }
    qcow2::GrowDisk(
        {.file = *layer_.file.writable,
         .data_file = layer_.data_file.writable.get(),
         .file_name = layer_.path.native(),
         .can_write_data = needs_data || !is_encrypted,
         .open = [&](const qcow2::Header& header) { return Open(header); }},
        size);
  }

 private:
  // Whether bytes of clusters have to be read or overwritten.
  bool NeedsData(uint64_t size, bool is_encrypted) {
    const qcow2::Header& header = *layer_.qcow2;
    const uint64_t in_cluster = header.size % header.cluster_size();
    if (layer_.backing && (in_cluster != 0 || header.version < 3)) return true;
    if (!is_encrypted) return false;
    if (layer_.data_file) return true;
    if (in_cluster == 0) return false;
    qcow2::Header longer = header;
    longer.size =
        std::min(size, header.size - in_cluster + header.cluster_size());
    qcow2::Qcow2Image::Parts parts = CommonParts(longer);
    parts.file = std::make_unique<BorrowedReader>(*layer_.file.writable);
    qcow2::Qcow2Image view(std::move(parts));
    for (uint64_t at = header.size; at < longer.size;) {
      const Extent extent = view.ExtentAt(at, longer.size - at);
      if (!extent.is_hole) return true;
      at += extent.length;
    }
    return false;
  }

  qcow2::Qcow2Image::Parts CommonParts(const qcow2::Header& header) {
    qcow2::Qcow2Image::Parts parts;
    parts.file_name = layer_.path.native();
    parts.header = header;
    parts.cipher = ClusterCipher(layer_);
    parts.l2_cache_bytes = kL2CacheBytes;
    return parts;
  }

  std::unique_ptr<WritableDevice> Open(const qcow2::Header& header) {
    qcow2::Qcow2Image::Parts parts = CommonParts(header);
    parts.snapshots =
        qcow2::ReadSnapshots(*layer_.file.writable, parts.file_name, header);
    parts.writable_file =
        std::make_unique<BorrowedDevice>(*layer_.file.writable);
    if (layer_.data_file) {
      parts.writable_data_file =
          std::make_unique<BorrowedDevice>(*layer_.data_file.writable);
    }
    if (backing_) parts.backing = std::make_unique<BorrowedReader>(*backing_);
    return std::make_unique<qcow2::Qcow2Image>(std::move(parts));
  }

  ImageLayer& layer_;
  std::unique_ptr<BlockDevice> backing_;  // Null without one.
};

}  // namespace

SizeChange ResizeImage(const OpenOptions& options, const NewSize& size,
                       PassphraseSource& passphrases) {
  OpenOptions writing = options;
  writing.writable = true;
  CheckOptions(writing);
  OpenOptions reading = options;
  reading.writable = false;
  const std::string name = options.image.native();
  // Where a LUKS volume lies in the image. The lock is taken behind that, and
  // then the container's size has to be the one that was seen.
  const ImageInfo info = DescribeImage(reading);
  const auto layers = OpenLayers(options.image, options.format, "", writing,
                                 IfNamedFileFails::kThrow);
  ImageLayer& layer = *layers;
  const uint64_t container =
      layer.qcow2 ? layer.qcow2->size : layer.file.device().size();
  const ContainerSize container_size(info, container, name);
  const uint64_t before = info.luks ? info.virtual_size : container;
  const uint64_t after = SizeAfter(before, size, name);
  const uint64_t wanted = container_size.For(after);
  if (wanted == container) return {.before = before, .after = after};
  if (!layer.qcow2) {
    ResizeRaw(layer, wanted);
  } else if (wanted > container) {
    GrowingImage(layer).GrowTo(wanted, options, passphrases);
  } else {
    qcow2::ShrinkDisk(*layer.file.writable, layer.data_file.writable.get(),
                      name, wanted);
  }
  return {.before = before, .after = after};
}

}  // namespace pellucid
