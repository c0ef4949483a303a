#include "engine/qcow2/header_encoding.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/header_fields.h"

namespace pellucid::qcow2 {
namespace {

// With the compression type, filled up to a multiple of 8.
constexpr size_t kWrittenVersion3Length = 112;
constexpr size_t kExtensionHead = 8;  // Type and length; the end has no more.

enum class FeatureKind : uint8_t {
  kIncompatible = 0,
  kCompatible = 1,
  kAutoclear = 2,
};

struct FeatureName {
  FeatureKind kind;
  uint8_t bit;
  std::string_view name;
};
constexpr std::array kFeatureTable = {
    FeatureName{FeatureKind::kIncompatible, 0, "dirty bit"},
    FeatureName{FeatureKind::kIncompatible, 1, "corrupt bit"},
    FeatureName{FeatureKind::kIncompatible, 2, "external data file"},
    FeatureName{FeatureKind::kIncompatible, 3, "compression type"},
    FeatureName{FeatureKind::kIncompatible, 4, "extended L2 entries"},
    FeatureName{FeatureKind::kCompatible, 0, "lazy refcounts"},
    FeatureName{FeatureKind::kAutoclear, 0, "bitmaps"},
    FeatureName{FeatureKind::kAutoclear, 1, "raw external data"},
};

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}

class HeaderEncoder {
 public:
  HeaderEncoder(const Header& header, const std::string& file_name)
      : header_(header), file_name_(file_name) {}

  std::vector<std::byte> Encode() && {
    PutVersion2Fields();
    if (header_.version >= 3) PutVersion3Fields();
    PutExtensions();
    PutBackingFile();
    return std::move(bytes_);
  }

 private:
  template <std::unsigned_integral T>
  void Put(const Field& field, T value) {
    StoreBigEndian(bytes_, field.byte, value);
  }

  void PutVersion2Fields() {
    bytes_.resize(kVersion2Length);
    Put(kMagicField, kMagic);
    Put(kVersionField, header_.version);
    Put(kClusterBits, header_.cluster_bits);
    Put(kSize, header_.size);
    Put(kCryptMethod, static_cast<uint32_t>(header_.crypt_method));
    Put(kL1Size, header_.l1_size);
    Put(kL1TableOffset, header_.l1_table_offset);
    Put(kRefcountTableOffset, header_.refcount_table_offset);
    Put(kRefcountTableClusters, header_.refcount_table_clusters);
    Put(kNbSnapshots, header_.nb_snapshots);
    Put(kSnapshotsOffset, header_.snapshots_offset);
  }

  void PutVersion3Fields() {
    bytes_.resize(kWrittenVersion3Length);
    Put(kIncompatibleFeatures, header_.incompatible_features);
    Put(kCompatibleFeatures, header_.compatible_features);
    Put(kAutoclearFeatures, header_.autoclear_features);
    Put(kRefcountOrder, header_.refcount_order);
    Put(kHeaderLength, static_cast<uint32_t>(bytes_.size()));
    Put(kCompressionTypeField, static_cast<uint8_t>(header_.compression_type));
  }

  void PutExtensions() {
    if (!header_.backing_format.empty()) {
      PutExtension(kBackingFormat, BytesOf(header_.backing_format));
    }
    if (!header_.data_file.empty()) {
      PutExtension(kDataFileName, BytesOf(header_.data_file));
    }
    if (header_.crypto_header) {
      std::array<std::byte, 16> pointer;
      StoreBigEndian(pointer, 0, header_.crypto_header->offset);
      StoreBigEndian(pointer, 8, header_.crypto_header->length);
      PutExtension(kFullDiskEncryption, pointer);
    }
    const size_t table = kFeatureTable.size() * kFeatureNameBytes;
    if (header_.version >= 3 && FreeBytes() >= kExtensionHead + table) {
      PutFeatureNames();
    }
    PutExtension(kEnd, {});
  }

  // What the first cluster leaves between here and the end of the extensions,
  // which the name of the backing file follows.
  size_t FreeBytes() const {
    const size_t taken =
        bytes_.size() + kExtensionHead + header_.backing_file.size();
    return header_.cluster_size() - std::min(taken, header_.cluster_size());
  }

  void PutExtension(Extension type, std::span<const std::byte> data) {
    const size_t at = bytes_.size();
    bytes_.resize(at + kExtensionHead + (data.size() + 7) / 8 * 8);
    StoreBigEndian(bytes_, at, static_cast<uint32_t>(type));
    StoreBigEndian(bytes_, at + 4, static_cast<uint32_t>(data.size()));
    std::ranges::copy(
        data, bytes_.begin() + static_cast<ptrdiff_t>(at + kExtensionHead));
  }

  void PutFeatureNames() {
    std::array<std::byte, kFeatureTable.size() * kFeatureNameBytes> table{};
    auto entry = table.begin();
    for (const FeatureName& feature : kFeatureTable) {
      entry[0] = static_cast<std::byte>(feature.kind);
      entry[1] = static_cast<std::byte>(feature.bit);
      std::ranges::copy(std::as_bytes(std::span(feature.name)), entry + 2);
      entry += kFeatureNameBytes;
    }
    PutExtension(kFeatureNames, table);
  }

  void PutBackingFile() {
    const std::string& name = header_.backing_file;
    if (name.size() > kMaxBackingName) {
      throw UsageError(fmt::format(
          "{}: the name of its backing file has {} bytes, more than the {} of "
          "the format; a relative name may be shorter",
          file_name_, name.size(), kMaxBackingName));
    }
    const size_t needed = bytes_.size() + name.size();
    if (needed > header_.cluster_size()) {
      throw UsageError(fmt::format(
          "{}: the header and the names in it take {} bytes, a cluster has {}; "
          "choose a larger cluster size",
          file_name_, needed, header_.cluster_size()));
    }
    if (name.empty()) return;
    Put(kBackingFileOffset, uint64_t{bytes_.size()});
    Put(kBackingFileSize, static_cast<uint32_t>(name.size()));
    bytes_.insert(bytes_.end(), BytesOf(name).begin(), BytesOf(name).end());
  }

  const Header& header_;
  const std::string& file_name_;
  std::vector<std::byte> bytes_;
};

}  // namespace

std::vector<std::byte> EncodeHeader(const Header& header,
                                    const std::string& file_name) {
  return HeaderEncoder(header, file_name).Encode();
}

}  // namespace pellucid::qcow2
