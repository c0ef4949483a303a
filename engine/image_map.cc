#include "engine/image_map.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "engine/image_layers.h"
#include "engine/luks/located_header.h"
#include "engine/qcow2/cluster_map.h"
#include "engine/qcow2/shared_clusters.h"

namespace pellucid {
namespace {

// The tables are read once, from front to back.
constexpr uint64_t kL2CacheBytes = 256 << 10;

MapKind KindOf(qcow2::ClusterKind kind) {
  switch (kind) {
    case qcow2::ClusterKind::kZero:
      return MapKind::kZero;
    case qcow2::ClusterKind::kData:
      return MapKind::kData;
    case qcow2::ClusterKind::kCompressed:
      return MapKind::kCompressed;
    case qcow2::ClusterKind::kUnallocated:
      break;
  }
  return MapKind::kUnallocated;
}

// What is left of `extent` behind its first `bytes`.
MapExtent Behind(MapExtent extent, uint64_t bytes) {
  extent.start += bytes;
  extent.length -= bytes;
  if (extent.host_offset) *extent.host_offset += bytes;
  return extent;
}

// Makes `next` a part of `extent` if one can describe both.
bool Join(MapExtent& extent, const MapExtent& next) {
  const auto looks = [](const MapExtent& e) {
    return std::tuple(e.kind, e.depth, e.encrypted, e.shared);
  };
  if (looks(extent) != looks(next) ||
      Behind(extent, extent.length).host_offset != next.host_offset) {
    return false;
  }
  extent.length += next.length;
  return true;
}

}  // namespace

// One file of the chain. Keeps the run that it was asked about last, so that a
// layer above with many small extents does not make it look again.
class ImageMap::Layer {
 public:
  explicit Layer(std::unique_ptr<ImageLayer> layer)
      : layer_(std::move(layer)), size_(layer_->file.device().size()) {
    if (layer_->luks_volume) {
      size_ = luks::PlaintextBytes(layer_->luks_volume->header, size_);
    } else if (layer_->qcow2) {
      OpenTables();
    }
  }

  uint64_t size() const { return size_; }
  const std::filesystem::path& file() const {
    return layer_->data_file ? layer_->data_file_path : layer_->path;
  }

  // What this file says of at most `max_length` bytes from `at` on.
  MapExtent At(uint64_t at, uint64_t max_length) {
    if (at < run_.start || at - run_.start >= run_.length) run_ = Look(at);
    MapExtent extent = Behind(run_, at - run_.start);
    extent.length = std::min(extent.length, max_length);
    if (extent.kind == MapKind::kData && extent.host_offset) {
      extent.length = shared_.AlikeBytes({*extent.host_offset}, extent.length);
      extent.shared = shared_.HasData({*extent.host_offset});
    }
    return extent;
  }

 private:
  void OpenTables() {
    const qcow2::Header& header = *layer_->qcow2;
    BlockDevice& file = layer_->file.device();
    const qcow2::Snapshot* shown =
        layer_->shown_snapshot ? &*layer_->shown_snapshot : nullptr;
    size_ = shown != nullptr ? shown->info.virtual_size : header.size;
    const std::string name = layer_->path.native();
    tables_.emplace(file, name, header,
                    qcow2::ReadL1TableOf(file, name, header, shown),
                    kL2CacheBytes);
    if (!layer_->snapshots.empty()) {
      shared_ = qcow2::SharedClusters(file, header, layer_->snapshots, shown);
    }
  }

  MapExtent Look(uint64_t at) {
    MapExtent extent = {.start = at, .length = size_ - at};
    if (layer_->luks_volume) {
      extent.kind = MapKind::kData;
      extent.encrypted = true;
    } else if (tables_) {
      LookIntoTables(extent);
    } else {
      const Extent host = layer_->file.device().ExtentAt(at, extent.length);
      extent.length = host.length;
      extent.kind = host.is_hole ? MapKind::kZero : MapKind::kData;
      extent.host_offset = at;
    }
    return extent;
  }

  void LookIntoTables(MapExtent& extent) {
    const qcow2::Mapping mapping = tables_->Map({extent.start}, extent.length);
    extent.length = mapping.length;
    extent.kind = KindOf(mapping.kind);
    const bool is_encrypted =
        layer_->qcow2->crypt_method != qcow2::CryptMethod::kNone;
    if (extent.kind == MapKind::kData) {
      extent.encrypted = is_encrypted;
      extent.host_offset = mapping.host.value;
    } else if (extent.kind == MapKind::kCompressed) {
      extent.shared = shared_.HasCompressed(mapping.host);
    } else if (mapping.has_place && !is_encrypted) {
      // Encrypted, what is there would not read as zeros.
      extent.host_offset = mapping.host.value;
    }
  }

  const std::unique_ptr<ImageLayer> layer_;
  uint64_t size_;
  std::optional<qcow2::ClusterMap> tables_;  // Of a qcow2 image.
  qcow2::SharedClusters shared_;
  MapExtent run_;
};

ImageMap::ImageMap(const OpenOptions& options) {
  CheckOptions(options);
  auto next = OpenLayers(options.image, options.format, options.snapshot,
                         options, IfNamedFileFails::kThrow);
  while (next) {
    auto layer = std::exchange(next, nullptr);
    std::ranges::copy(layer->warnings, std::back_inserter(warnings_));
    next = std::move(layer->backing);
    layers_.push_back(std::make_unique<Layer>(std::move(layer)));
  }
}

ImageMap::~ImageMap() = default;

uint64_t ImageMap::size() const { return layers_.front()->size(); }

const std::filesystem::path& ImageMap::file(unsigned depth) const {
  return layers_.at(depth)->file();
}

void ImageMap::ForEachExtent(
    const std::function<void(const MapExtent&)>& each) {
  MapExtent extent;
  for (uint64_t at = 0; at < size(); at = extent.start + extent.length) {
    const MapExtent next = At(at);
    if (at == 0) {
      extent = next;
    } else if (!Join(extent, next)) {
      each(extent);
      extent = next;
    }
  }
  if (extent.length != 0) each(extent);
}

MapExtent ImageMap::At(uint64_t at) {
  uint64_t length = size() - at;
  for (size_t depth = 0;; ++depth) {
    MapExtent extent = layers_[depth]->At(at, length);
    extent.depth = static_cast<unsigned>(depth);
    const bool has_backing =
        depth + 1 < layers_.size() && at < layers_[depth + 1]->size();
    if (extent.kind != MapKind::kUnallocated || !has_backing) return extent;
    length = std::min(extent.length, layers_[depth + 1]->size() - at);
  }
}

}  // namespace pellucid
