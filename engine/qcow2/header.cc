#include "engine/qcow2/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/big_endian.h"
#include "engine/errors.h"
#include "engine/qcow2/header_fields.h"

namespace pellucid::qcow2 {
namespace {

constexpr uint64_t kKnownIncompatible =
    kDirty | kCorrupt | kExternalDataFile | kCompressionType | kExtendedL2;
constexpr uint32_t kMaxSnapshots = 65536;
constexpr uint64_t kMaxCryptoHeaderBytes = 64 << 20;

std::string Describe(const Field& field) {
  return fmt::format("header field {} (byte {})", field.name, field.byte);
}

class HeaderParser {
 public:
  HeaderParser(BlockDevice& file, const std::string& file_name)
      : file_name_(file_name), file_size_(file.size()) {
    bytes_.resize(std::min<uint64_t>(file_size_, kVersion3Length + 1));
    file.Read(0, bytes_);
    ParseClusterSize();
    bytes_.resize(std::min(file_size_, header_.cluster_size()));
    file.Read(0, bytes_);
  }

  Header Parse() && {
    ParseVersion2Fields();
    if (header_.version >= 3) ParseVersion3Fields();
    ParseExtensions();
    // After the extensions, which hold the names of unknown features.
    CheckFeatures();
    CheckEncryption();
    ParseBackingFile();
    CheckTables();
    return std::move(header_);
  }

 private:
  template <std::unsigned_integral T>
  T Get(const Field& field) const {
    if (field.byte + sizeof(T) > bytes_.size()) {
      throw CorruptImage(
          fmt::format("{}: {} lies behind the end of the {}-byte file; the "
                      "image was cut off",
                      file_name_, Describe(field), file_size_));
    }
    return LoadBigEndian<T>(bytes_, field.byte);
  }

  [[noreturn]] void Corrupt(const Field& field, const std::string& why) const {
    throw CorruptImage(
        fmt::format("{}: {} {}", file_name_, Describe(field), why));
  }

  void ParseClusterSize() {
    header_.version = Get<uint32_t>(kVersionField);
    if (header_.version != 2 && header_.version != 3) {
      throw Unsupported(fmt::format(
          "{}: {} is {}; versions 2 and 3 are supported, `qemu-img convert` "
          "makes one from others",
          file_name_, Describe(kVersionField), header_.version));
    }
    header_.cluster_bits = Get<uint32_t>(kClusterBits);
    if (header_.cluster_bits < 9 || header_.cluster_bits > 21) {
      Corrupt(kClusterBits,
              fmt::format("is {}, not within 9 to 21", header_.cluster_bits));
    }
  }

  void ParseVersion2Fields() {
    header_.backing_file_offset = Get<uint64_t>(kBackingFileOffset);
    header_.backing_file_size = Get<uint32_t>(kBackingFileSize);
    header_.size = Get<uint64_t>(kSize);
    const auto crypt_method = Get<uint32_t>(kCryptMethod);
    if (crypt_method > 2) {
      throw Unsupported(fmt::format(
          "{}: {} is {}; supported are 0 (none), 1 (AES) and 2 (LUKS)",
          file_name_, Describe(kCryptMethod), crypt_method));
    }
    header_.crypt_method = static_cast<CryptMethod>(crypt_method);
    header_.l1_size = Get<uint32_t>(kL1Size);
    header_.l1_table_offset = Get<uint64_t>(kL1TableOffset);
    header_.refcount_table_offset = Get<uint64_t>(kRefcountTableOffset);
    header_.refcount_table_clusters = Get<uint32_t>(kRefcountTableClusters);
    header_.nb_snapshots = Get<uint32_t>(kNbSnapshots);
    header_.snapshots_offset = Get<uint64_t>(kSnapshotsOffset);
    header_.header_length = kVersion2Length;
  }

  void ParseVersion3Fields() {
    header_.incompatible_features = Get<uint64_t>(kIncompatibleFeatures);
    header_.compatible_features = Get<uint64_t>(kCompatibleFeatures);
    header_.autoclear_features = Get<uint64_t>(kAutoclearFeatures);
    header_.refcount_order = Get<uint32_t>(kRefcountOrder);
    if (header_.refcount_order > 6) {
      Corrupt(kRefcountOrder, fmt::format("is {}, above 6 (64-bit refcounts)",
                                          header_.refcount_order));
    }
    header_.header_length = Get<uint32_t>(kHeaderLength);
    if (header_.header_length < kVersion3Length) {
      Corrupt(kHeaderLength,
              fmt::format("is {}, below {}", header_.header_length,
                          kVersion3Length));
    }
    if (header_.header_length > header_.cluster_size()) {
      Corrupt(kHeaderLength,
              fmt::format("is {}, past the {}-byte cluster",
                          header_.header_length, header_.cluster_size()));
    }
    if (header_.header_length > kCompressionTypeField.byte) {
      const auto type = Get<uint8_t>(kCompressionTypeField);
      if (type > 1) {
        throw Unsupported(
            fmt::format("{}: {} is {}; supported are 0 (zlib) and 1 (zstd)",
                        file_name_, Describe(kCompressionTypeField), type));
      }
      header_.compression_type = static_cast<CompressionType>(type);
    }
  }

  // The extensions end at the backing file's name or with the cluster.
  void ParseExtensions() {
    size_t at = header_.header_length;
    size_t end = bytes_.size();
    if (header_.backing_file_offset != 0) {
      end = std::min<uint64_t>(end, header_.backing_file_offset);
    }
    while (at + 8 <= end) {
      const auto type = LoadBigEndian<uint32_t>(bytes_, at);
      const auto length = LoadBigEndian<uint32_t>(bytes_, at + 4);
      if (type == kEnd) break;
      if (length > end - at - 8) {
        throw CorruptImage(fmt::format(
            "{}: header extension {:#010x} (byte {}) is {} bytes long, past "
            "the end of the header area at {}",
            file_name_, type, at, length, end));
      }
      ParseExtension(type, at, std::span(bytes_).subspan(at + 8, length));
      at += 8 + (size_t{length} + 7) / 8 * 8;
    }
  }

  void ParseExtension(uint32_t type, size_t at,
                      std::span<const std::byte> data) {
    const auto text = [&] {
      return std::string(reinterpret_cast<const char*>(data.data()),
                         data.size());
    };
    switch (type) {
      case kBackingFormat:
        header_.backing_format = text();
        break;
      case kDataFileName:
        header_.data_file = text();
        break;
      case kFeatureNames:
        ParseFeatureNames(data);
        break;
      case kBitmaps:
        header_.bitmaps_extension.assign(data.begin(), data.end());
        if (data.size() >= 4) {
          header_.nb_bitmaps = LoadBigEndian<uint32_t>(data, 0);
        }
        break;
      case kFullDiskEncryption:
        ParseCryptoHeaderPointer(at, data);
        break;
      default:
        break;  // "can be safely ignored"
    }
  }

  void ParseFeatureNames(std::span<const std::byte> table) {
    constexpr size_t kEntry = kFeatureNameBytes;
    for (; table.size() >= kEntry; table = table.subspan(kEntry)) {
      const auto type = std::to_integer<unsigned>(table[0]);
      const auto bit = std::to_integer<unsigned>(table[1]);
      std::string name;
      for (const std::byte b : table.subspan(2, kEntry - 2)) {
        const auto c = std::to_integer<char>(b);
        if (c == 0) break;
        name += c >= ' ' && c <= '~' ? c : '?';  // Ends on a terminal.
      }
      if (type == 0) incompatible_names_[bit] = name;
    }
  }

  void ParseCryptoHeaderPointer(size_t at, std::span<const std::byte> data) {
    const std::string where = fmt::format(
        "{}: full disk encryption header extension (byte {})", file_name_, at);
    if (data.size() != 16) {
      throw CorruptImage(
          fmt::format("{} is {} bytes long, not 16", where, data.size()));
    }
    CryptoHeaderPointer pointer;
    pointer.offset = LoadBigEndian<uint64_t>(data, 0);
    pointer.length = LoadBigEndian<uint64_t>(data, 8);
    if (pointer.offset % header_.cluster_size() != 0) {
      throw CorruptImage(fmt::format(
          "{}: offset {:#x} (byte {}) is not a multiple of the {}-byte cluster",
          where, pointer.offset, at + 8, header_.cluster_size()));
    }
    if (pointer.offset > file_size_ ||
        pointer.length > file_size_ - pointer.offset) {
      throw CorruptImage(fmt::format(
          "{}: {} bytes (byte {}) at offset {:#x} end behind the {}-byte file",
          where, pointer.length, at + 16, pointer.offset, file_size_));
    }
    if (pointer.length > kMaxCryptoHeaderBytes) {
      throw CorruptImage(fmt::format(
          "{}: length {} (byte {}) is above {} MiB; eight keyslots "
          "for the longest keys take 16",
          where, pointer.length, at + 16, kMaxCryptoHeaderBytes >> 20));
    }
    header_.crypto_header = pointer;
  }

  void CheckFeatures() const {
    const uint64_t unknown =
        header_.incompatible_features & ~kKnownIncompatible;
    if (unknown != 0) {
      std::string names;
      for (unsigned bit = 0; bit < 64; ++bit) {
        if ((unknown >> bit & 1) == 0) continue;
        const auto name = incompatible_names_.find(bit);
        names += fmt::format("{}bit {}", names.empty() ? "" : ", ", bit);
        if (name != incompatible_names_.end()) {
          names += fmt::format(" \"{}\"", name->second);
        }
      }
      throw Unsupported(
          fmt::format("{}: {} has features that are not supported: {}",
                      file_name_, Describe(kIncompatibleFeatures), names));
    }
    if (header_.has(kCompressionType) !=
        (header_.compression_type != CompressionType::kZlib)) {
      Corrupt(kCompressionTypeField,
              fmt::format("is {} but the compression type bit of {} is {}",
                          static_cast<unsigned>(header_.compression_type),
                          Describe(kIncompatibleFeatures),
                          header_.has(kCompressionType) ? "set" : "clear"));
    }
    if (header_.has(kExtendedL2) && header_.cluster_bits < 14) {
      Corrupt(kClusterBits,
              fmt::format("is {}, below 14, which extended L2 entries need",
                          header_.cluster_bits));
    }
  }

  void CheckEncryption() const {
    if (header_.crypt_method == CryptMethod::kLuks && !header_.crypto_header) {
      Corrupt(kCryptMethod,
              "is 2 (LUKS) but the image has no full disk encryption header "
              "extension");
    }
    if (header_.crypt_method != CryptMethod::kLuks && header_.crypto_header) {
      Corrupt(kCryptMethod,
              fmt::format("is {} but the image has a full disk encryption "
                          "header extension, which only 2 (LUKS) has",
                          static_cast<unsigned>(header_.crypt_method)));
    }
  }

  void ParseBackingFile() {
    if (header_.backing_file_offset == 0) return;
    if (header_.backing_file_offset < header_.header_length) {
      Corrupt(kBackingFileOffset,
              fmt::format("is {}, inside the {} bytes of the header",
                          header_.backing_file_offset, header_.header_length));
    }
    if (header_.backing_file_size > kMaxBackingName) {
      Corrupt(kBackingFileSize,
              fmt::format("is {}, above {}", header_.backing_file_size,
                          kMaxBackingName));
    }
    if (header_.backing_file_offset > bytes_.size() ||
        header_.backing_file_size >
            bytes_.size() - header_.backing_file_offset) {
      Corrupt(
          kBackingFileOffset,
          fmt::format("is {:#x}: {} bytes from there run past the first "
                      "cluster",
                      header_.backing_file_offset, header_.backing_file_size));
    }
    header_.backing_file.assign(reinterpret_cast<const char*>(bytes_.data()) +
                                    header_.backing_file_offset,
                                header_.backing_file_size);
    if (header_.backing_file.find('\0') != std::string::npos) {
      Corrupt(kBackingFileOffset, "points to a name with a NUL byte in it");
    }
  }

  void CheckTables() const {
    const uint64_t cluster_size = header_.cluster_size();
    CheckTable(file_name_, file_size_, cluster_size, header_.l1_table_offset,
               Describe(kL1TableOffset), header_.l1_size, Describe(kL1Size),
               kMaxL1Bytes);
    const uint64_t needed = header_.size / header_.l2_coverage() +
                            (header_.size % header_.l2_coverage() != 0);
    if (header_.l1_size < needed) {
      Corrupt(kL1Size, fmt::format("is {} but {} of {} needs {} entries",
                                   header_.l1_size, Describe(kSize),
                                   header_.size, needed));
    }
    if (header_.refcount_table_clusters == 0) {
      Corrupt(kRefcountTableClusters, "is 0: there is no refcount table");
    }
    if (header_.refcount_table_clusters >
        kMaxRefcountTableBytes / cluster_size) {
      Corrupt(kRefcountTableClusters,
              fmt::format("is {}, which makes more than {} MiB",
                          header_.refcount_table_clusters,
                          kMaxRefcountTableBytes >> 20));
    }
    CheckTable(file_name_, file_size_, cluster_size,
               header_.refcount_table_offset, Describe(kRefcountTableOffset),
               header_.refcount_table_clusters * (cluster_size / 8),
               Describe(kRefcountTableClusters), kMaxRefcountTableBytes);
    if (header_.nb_snapshots > kMaxSnapshots) {
      Corrupt(kNbSnapshots, fmt::format("is {}, above {}", header_.nb_snapshots,
                                        kMaxSnapshots));
    }
    CheckTable(file_name_, file_size_, cluster_size, header_.snapshots_offset,
               Describe(kSnapshotsOffset), header_.nb_snapshots,
               Describe(kNbSnapshots), UINT64_MAX);
  }

  const std::string& file_name_;
  const uint64_t file_size_;
  std::vector<std::byte> bytes_;
  Header header_;
  std::map<unsigned, std::string> incompatible_names_;  // By bit.
};

}  // namespace

bool HasMagic(std::span<const std::byte> start) {
  return start.size() >= 4 && LoadBigEndian<uint32_t>(start, 0) == kMagic;
}

Header ReadHeader(BlockDevice& file, const std::string& file_name) {
  return HeaderParser(file, file_name).Parse();
}

void CheckTable(const std::string& file_name, uint64_t file_size,
                uint64_t cluster_size, uint64_t offset,
                const std::string& offset_field, uint64_t entries,
                const std::string& size_field, uint64_t max_bytes) {
  if (entries == 0) return;
  if (entries > max_bytes / 8) {
    throw CorruptImage(
        fmt::format("{}: {} is {}, which makes a table above the limit of {} "
                    "MiB",
                    file_name, size_field, entries, max_bytes >> 20));
  }
  if (offset % cluster_size != 0) {
    throw CorruptImage(
        fmt::format("{}: {} is {:#x}, not a multiple of the {}-byte cluster",
                    file_name, offset_field, offset, cluster_size));
  }
  if (offset == 0) {
    throw CorruptImage(fmt::format("{}: {} is 0, where the header stands",
                                   file_name, offset_field));
  }
  if (offset > file_size || entries * 8 > file_size - offset) {
    throw CorruptImage(fmt::format(
        "{}: {} is {:#x}: a table of {} bytes there ends behind the {}-byte "
        "file",
        file_name, offset_field, offset, entries * 8, file_size));
  }
}

}  // namespace pellucid::qcow2
