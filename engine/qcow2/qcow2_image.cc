#include "engine/qcow2/qcow2_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/errors.h"
#include "engine/sector_pieces.h"

namespace pellucid::qcow2 {
namespace {

constexpr uint64_t kSectorSize = 512;

L1Table LoadL1(BlockDevice& file, const Qcow2Image::Parts& parts) {
  const Header& header = parts.header;
  if (!parts.snapshot) {
    return ReadL1Table(file, header.l1_table_offset, header.l1_size);
  }
  const Snapshot& snapshot = *parts.snapshot;
  const auto field = [&](const char* name, uint64_t at) {
    return fmt::format("{} (byte {}) of snapshot {}", name,
                       snapshot.entry_offset + at, snapshot.info.id);
  };
  const std::string l1_size = field("l1_size", 8);
  CheckTable(parts.file_name, file.size(), header.cluster_size(),
             snapshot.l1_table_offset, field("l1_table_offset", 0),
             snapshot.l1_size, l1_size, kMaxL1Bytes);
  const uint64_t size = snapshot.info.virtual_size;
  const uint64_t needed =
      size / header.l2_coverage() + (size % header.l2_coverage() != 0);
  if (snapshot.l1_size < needed) {
    throw CorruptImage(
        fmt::format("{}: {} is {} but its disk of {} bytes needs {} entries",
                    parts.file_name, l1_size, snapshot.l1_size, size, needed));
  }
  return ReadL1Table(file, snapshot.l1_table_offset, snapshot.l1_size);
}

}  // namespace

Qcow2Image::Qcow2Image(Parts parts)
    : file_name_(parts.file_name),
      file_(std::move(parts.file)),
      data_file_(std::move(parts.data_file)),
      backing_(std::move(parts.backing)),
      cipher_(std::move(parts.cipher)),
      clusters_(data_file_ ? *data_file_ : *file_),
      size_(parts.snapshot ? parts.snapshot->info.virtual_size
                           : parts.header.size),
      cluster_size_(parts.header.cluster_size()),
      tweak_is_guest_(parts.header.crypt_method == CryptMethod::kAes),
      map_(*file_, file_name_, parts.header, LoadL1(*file_, parts),
           parts.l2_cache_bytes),
      compressed_(*file_, file_name_, parts.header.compression_type,
                  cluster_size_) {}

void Qcow2Image::Read(uint64_t offset, std::span<std::byte> out) {
  GuestOffset guest = {offset};
  while (!out.empty()) {
    const Mapping mapping = map_.Map(guest, out.size());
    const std::span piece = out.first(mapping.length);
    switch (mapping.kind) {
      case ClusterKind::kData:
        ReadData(guest, mapping.host, piece);
        break;
      case ClusterKind::kCompressed:
        compressed_.Read(mapping, guest.value % cluster_size_, piece);
        break;
      case ClusterKind::kUnallocated:
        if (backing_) {
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

void Qcow2Image::ReadData(GuestOffset guest, HostOffset host,
                          std::span<std::byte> out) {
  if (!cipher_) return ReadZeroPadded(clusters_, host.value, out);
  // Guest and host are equally far into their cluster, so that both begin and
  // end sectors at the same bytes.
  ReadInSectors(host.value, out, kSectorSize,
                [&](uint64_t at, std::span<std::byte> sectors) {
                  // A cluster may end behind the file: zeros of ciphertext.
                  ReadZeroPadded(clusters_, at, sectors);
                  const uint64_t tweaked =
                      tweak_is_guest_ ? guest.value - host.value + at : at;
                  cipher_->Decrypt(tweaked / kSectorSize, sectors, sectors);
                });
}

Extent Qcow2Image::ExtentAt(uint64_t offset, uint64_t max_length) {
  uint64_t length = std::min(max_length, size_ - offset);
  // The backing device first: its extent bounds how far the map looks, so that
  // a walk costs as much as there are extents in both.
  bool below_is_hole = true;
  if (backing_ && offset < backing_->size()) {
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
