#include "engine/qcow2/state_reader.h"

#include <algorithm>
#include <cstring>

namespace pellucid::qcow2 {

void StateReader::Read(uint64_t offset, std::span<std::byte> out) {
  GuestOffset guest = {offset};
  while (!out.empty()) {
    const Mapping mapping = map_.Map(guest, out.size());
    const std::span piece = out.first(mapping.length);
    switch (mapping.kind) {
      case ClusterKind::kData:
        data_.Read(guest, mapping.host, piece);
        break;
      case ClusterKind::kCompressed:
        compressed_.Read(mapping, guest.value % cluster_size_, piece);
        break;
      case ClusterKind::kUnallocated:
        if (backing_ != nullptr) {
          ReadZeroPadded(*backing_, guest.value, piece);
          break;
        }
        [[fallthrough]];
      case ClusterKind::kZero:
        std::memset(piece.data(), 0, piece.size());
        break;
    }
    guest = guest + mapping.length;
    out = out.subspan(mapping.length);
  }
}

Extent StateReader::ExtentAt(uint64_t offset, uint64_t max_length) {
  uint64_t length = std::min(max_length, size_ - offset);
  // The backing device first: its extent bounds how far the map looks, so that
  // a walk costs as much as there are extents in both.
  bool below_is_hole = true;
  if (backing_ != nullptr && offset < backing_->size()) {
    const Extent below =
        backing_->ExtentAt(offset, std::min(length, backing_->size() - offset));
    length = below.length;
    below_is_hole = below.is_hole;
  }
  const Mapping mapping = map_.Map({offset}, length);
  const bool is_hole =
      mapping.kind == ClusterKind::kZero ||
      (mapping.kind == ClusterKind::kUnallocated && below_is_hole);
  return {.length = mapping.length, .is_hole = is_hole};
}

}  // namespace pellucid::qcow2
