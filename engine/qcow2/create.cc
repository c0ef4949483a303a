#include "engine/qcow2/create.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <span>

#include "engine/big_endian.h"
#include "engine/device_window.h"
#include "engine/errors.h"
#include "engine/qcow2/header_encoding.h"
#include "engine/qcow2/header_fields.h"

namespace pellucid::qcow2 {
namespace {

constexpr uint64_t kMinClusterSize = 512;
constexpr uint64_t kMinExtendedL2ClusterSize = 16 << 10;
constexpr uint64_t kMaxClusterSize = 2 << 20;
// What QEMU takes as the size of any image: 2^63 - 2^30.
constexpr uint64_t kMaxGuestSize = (uint64_t{1} << 63) - (uint64_t{1} << 30);

uint64_t DivideUp(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

void CheckVersion2(const CreateOptions& options, const std::string& file_name) {
  const char* feature = options.refcount_bits != 16
                            ? "refcounts of other than 16 bits"
                        : options.extended_l2        ? "extended L2 entries"
                        : options.lazy_refcounts     ? "lazy refcounts"
                        : !options.data_file.empty() ? "external data files"
                        : options.compression_type != CompressionType::kZlib
                            ? "compression types other than zlib"
                            : nullptr;
  if (feature != nullptr) {
    throw UsageError(
        fmt::format("{}: {} need version 3 of qcow2 (compat 1.1), not 2 "
                    "(compat 0.10)",
                    file_name, feature));
  }
}

void CheckOptions(const CreateOptions& options, const std::string& file_name) {
  const auto refuse = [&](const std::string& why) {
    throw UsageError(fmt::format("{}: {}", file_name, why));
  };
  if (options.version != 2 && options.version != 3) {
    refuse(fmt::format("version {} of qcow2 cannot be made, 2 and 3 can",
                       options.version));
  }
  if (!std::has_single_bit(options.cluster_size) ||
      options.cluster_size < kMinClusterSize ||
      options.cluster_size > kMaxClusterSize) {
    refuse(
        fmt::format("the cluster size {} is not a power of 2 from 512 to "
                    "2097152 (2 MiB)",
                    options.cluster_size));
  }
  if (!std::has_single_bit(options.refcount_bits) ||
      options.refcount_bits > 64) {
    refuse(
        fmt::format("refcounts cannot have {} bits; 1, 2, 4, 8, 16, 32 and "
                    "64 are possible",
                    options.refcount_bits));
  }
  if (options.extended_l2 && options.cluster_size < kMinExtendedL2ClusterSize) {
    refuse(
        fmt::format("extended L2 entries need clusters of 16384 bytes (16 "
                    "KiB) or more, not {}",
                    options.cluster_size));
  }
  if (options.size % 512 != 0) {
    refuse(fmt::format("the size {} is not a multiple of 512", options.size));
  }
  if (!options.backing_file.empty() && !options.data_file.empty() &&
      options.data_file_raw) {
    refuse(
        "a raw external data file holds everything, so there can be no "
        "backing file");
  }
  if (options.version == 2) CheckVersion2(options, file_name);
}

Header HeaderOf(const CreateOptions& options) {
  Header header;
  header.version = options.version;
  header.cluster_bits =
      static_cast<uint32_t>(std::countr_zero(options.cluster_size));
  header.size = options.size;
  header.refcount_order =
      static_cast<uint32_t>(std::countr_zero(options.refcount_bits));
  header.backing_file = options.backing_file;
  header.backing_format = options.backing_format;
  header.data_file = options.data_file;
  header.compression_type = options.compression_type;
  if (!options.data_file.empty()) {
    header.incompatible_features |= kExternalDataFile;
    if (options.data_file_raw) header.autoclear_features |= kRawExternalData;
  }
  if (options.compression_type != CompressionType::kZlib) {
    header.incompatible_features |= kCompressionType;
  }
  if (options.extended_l2) header.incompatible_features |= kExtendedL2;
  if (options.lazy_refcounts) header.compatible_features |= kLazyRefcounts;
  if (options.crypto_header_bytes != 0) {
    header.crypt_method = CryptMethod::kLuks;
  }
  return header;
}

// Entries of the L1 table. Refuses a size that needs too many.
uint32_t L1Entries(const Header& header, const std::string& file_name) {
  constexpr uint64_t kMaxEntries = kMaxL1Bytes / 8;
  const uint64_t entries = DivideUp(header.size, header.l2_coverage());
  if (entries <= kMaxEntries && header.size <= kMaxGuestSize) {
    return static_cast<uint32_t>(entries);
  }
  const bool can_grow =
      header.cluster_size() < kMaxClusterSize && header.size <= kMaxGuestSize;
  throw UsageError(fmt::format(
      "{}: {} bytes are too many for clusters of {}: they reach up to {} bytes"
      "{}",
      file_name, header.size, header.cluster_size(),
      std::min(kMaxEntries * header.l2_coverage(), kMaxGuestSize),
      can_grow ? "; a larger cluster size reaches further" : ""));
}

// Makes the range read as zeros, and keeps it a hole where it is one.
void Clear(WritableDevice& file, uint64_t offset, uint64_t length) {
  static constexpr std::array<std::byte, 65536> kZeros{};
  while (length > 0) {
    const Extent extent =
        file.ExtentAt(offset, std::min<uint64_t>(length, kZeros.size()));
    if (!extent.is_hole) {
      file.Write(offset, std::span(kZeros).first(extent.length));
    }
    offset += extent.length;
    length -= extent.length;
  }
}

// Writes `start` and clears what follows it up to `length`.
void WriteAndClear(WritableDevice& file, uint64_t offset,
                   std::span<const std::byte> start, uint64_t length) {
  file.Write(offset, start);
  Clear(file, offset + start.size(), length - start.size());
}

// Refcount blocks in which the first `clusters` are 1 and the others, which
// may be missing at the end, 0. Widths below a byte count from its low bits,
// others are big endian.
std::vector<std::byte> RefcountsOfOne(uint64_t clusters,
                                      uint32_t refcount_order) {
  const uint64_t bits = uint64_t{1} << refcount_order;
  std::vector<std::byte> blocks((clusters * bits + 7) / 8);
  for (uint64_t i = 0; i < clusters; ++i) {
    const uint64_t lowest_byte = ((i + 1) * bits + 7) / 8 - 1;
    const unsigned shift = bits < 8 ? i * bits % 8 : 0;
    blocks[lowest_byte] |= std::byte{1} << shift;
  }
  return blocks;
}

}  // namespace

EmptyImage::EmptyImage(const CreateOptions& options,
                       const std::string& file_name) {
  CheckOptions(options, file_name);
  header_ = HeaderOf(options);
  header_.l1_size = L1Entries(header_, file_name);
  PlaceTables(options.crypto_header_bytes);
  encoded_header_ = EncodeHeader(header_, file_name);
}

uint64_t EmptyImage::file_bytes() const {
  return clusters_ * header_.cluster_size();
}

// Header, refcount table, refcount blocks, L1 table, LUKS header.
void EmptyImage::PlaceTables(uint64_t crypto_header_bytes) {
  const uint64_t cluster_size = header_.cluster_size();
  const uint64_t l1_clusters =
      DivideUp(uint64_t{header_.l1_size} * 8, cluster_size);
  const uint64_t crypto_clusters = DivideUp(crypto_header_bytes, cluster_size);
  const uint64_t block_entries = cluster_size * 8 >> header_.refcount_order;
  // The refcounts count themselves: each round can only ask for more of them.
  uint64_t table_clusters = 1;
  for (;;) {
    clusters_ =
        1 + table_clusters + refcount_blocks_ + l1_clusters + crypto_clusters;
    const uint64_t blocks = DivideUp(clusters_, block_entries);
    const uint64_t tables = DivideUp(blocks * 8, cluster_size);
    if (blocks == refcount_blocks_ && tables == table_clusters) break;
    refcount_blocks_ = blocks;
    table_clusters = tables;
  }
  uint64_t end = cluster_size;
  const auto place = [&](uint64_t clusters) {
    const uint64_t offset = end;
    end += clusters * cluster_size;
    return offset;
  };
  header_.refcount_table_offset = place(table_clusters);
  header_.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  refcount_blocks_offset_ = place(refcount_blocks_);
  if (l1_clusters != 0) header_.l1_table_offset = place(l1_clusters);
  if (crypto_header_bytes != 0) {
    header_.crypto_header = {.offset = place(crypto_clusters),
                             .length = crypto_header_bytes};
  }
}

void EmptyImage::WriteRefcounts(WritableDevice& file) const {
  const uint64_t cluster_size = header_.cluster_size();
  std::vector<std::byte> table(refcount_blocks_ * 8);
  for (uint64_t i = 0; i < refcount_blocks_; ++i) {
    StoreBigEndian(table, i * 8, refcount_blocks_offset_ + i * cluster_size);
  }
  WriteAndClear(file, header_.refcount_table_offset, table,
                header_.refcount_table_clusters * cluster_size);
  WriteAndClear(file, refcount_blocks_offset_,
                RefcountsOfOne(clusters_, header_.refcount_order),
                refcount_blocks_ * cluster_size);
}

void EmptyImage::WriteTo(WritableDevice& file,
                         const WriteCryptoHeader& write_crypto_header) const {
  constexpr size_t kMagicBytes = sizeof kMagic;
  // An older image in the same place is not to open with half of the new one.
  Clear(file, 0, header_.cluster_size());
  file.Flush();

  WriteRefcounts(file);
  Clear(file, header_.l1_table_offset, uint64_t{header_.l1_size} * 8);
  if (header_.crypto_header) {
    const CryptoHeaderPointer& room = *header_.crypto_header;
    Clear(file, room.offset, file_bytes() - room.offset);
    DeviceWindow area(file, room.offset, room.length);
    write_crypto_header(area);
  }
  const std::span<const std::byte> encoded = encoded_header_;
  file.Write(kMagicBytes, encoded.subspan(kMagicBytes));
  file.Flush();

  file.Write(0, encoded.first(kMagicBytes));
  file.Flush();
}

}  // namespace pellucid::qcow2
