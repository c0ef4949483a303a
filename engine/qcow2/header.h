#ifndef PELLUCID_ENGINE_QCOW2_HEADER_H_
#define PELLUCID_ENGINE_QCOW2_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/block_device.h"

namespace pellucid::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"

// Bits of incompatible_features.
inline constexpr uint64_t kDirty = 1 << 0;
inline constexpr uint64_t kCorrupt = 1 << 1;
inline constexpr uint64_t kExternalDataFile = 1 << 2;
inline constexpr uint64_t kCompressionType = 1 << 3;
inline constexpr uint64_t kExtendedL2 = 1 << 4;
// Bits of compatible_features.
inline constexpr uint64_t kLazyRefcounts = 1 << 0;
// Bits of autoclear_features.
inline constexpr uint64_t kBitmapsConsistent = 1 << 0;
inline constexpr uint64_t kRawExternalData = 1 << 1;

enum class CryptMethod : uint32_t { kNone = 0, kAes = 1, kLuks = 2 };
enum class CompressionType : uint8_t { kZlib = 0, kZstd = 1 };

// Full disk encryption header pointer (extension 0x0537be77).
struct CryptoHeaderPointer {
  uint64_t offset = 0;
  uint64_t length = 0;
};

// The header and its extensions, checked, in host byte order. The names are
// those of the specification (QEMU's docs/interop/qcow2, "Header").
struct Header {
  uint32_t version = 0;
  uint64_t backing_file_offset = 0;
  uint32_t backing_file_size = 0;
  uint32_t cluster_bits = 0;
  uint64_t size = 0;
  CryptMethod crypt_method = CryptMethod::kNone;
  uint32_t l1_size = 0;  // In entries.
  uint64_t l1_table_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t nb_snapshots = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible_features = 0;
  uint64_t compatible_features = 0;
  uint64_t autoclear_features = 0;
  uint32_t refcount_order = 4;
  uint32_t header_length = 72;
  CompressionType compression_type = CompressionType::kZlib;

  std::string backing_file;    // Empty without one.
  std::string backing_format;  // Empty if the image does not say.
  std::string data_file;
  std::optional<CryptoHeaderPointer> crypto_header;
  uint32_t nb_bitmaps = 0;
  // What the bitmaps extension holds, unchecked; empty without one.
  std::vector<std::byte> bitmaps_extension;

  bool has(uint64_t incompatible_feature) const {
    return (incompatible_features & incompatible_feature) != 0;
  }
  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  uint64_t l2_entry_size() const { return has(kExtendedL2) ? 16 : 8; }
  // Entries of one L2 table, and the guest bytes that they cover.
  uint64_t l2_entries() const { return cluster_size() / l2_entry_size(); }
  uint64_t l2_coverage() const { return l2_entries() * cluster_size(); }
};

// True if `start`, the first bytes of a file, are those of a qcow2 image.
bool HasMagic(std::span<const std::byte> start);

// Reads the header and everything in the first cluster, and refuses what
// contradicts the specification or this program's limits. `file_name` is for
// messages. Throws CorruptImage, Unsupported and IoError.
Header ReadHeader(BlockDevice& file, const std::string& file_name);

// Checks a table of `entries` 8-byte entries at `offset`: aligned to a cluster,
// at most `max_bytes` long and inside the file. The messages call its offset
// `offset_field` and its length `size_field`. Throws CorruptImage.
void CheckTable(const std::string& file_name, uint64_t file_size,
                uint64_t cluster_size, uint64_t offset,
                const std::string& offset_field, uint64_t entries,
                const std::string& size_field, uint64_t max_bytes);

inline constexpr uint64_t kMaxL1Bytes = 32 << 20;

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_HEADER_H_
