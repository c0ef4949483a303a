#ifndef PELLUCID_ENGINE_QCOW2_HEADER_FIELDS_H_
#define PELLUCID_ENGINE_QCOW2_HEADER_FIELDS_H_

#include <cstddef>
#include <cstdint>

namespace pellucid::qcow2 {

// Where the fields of the header stand in the file, once, for reading, writing
// and messages. Names and places are those of the specification (QEMU's
// docs/interop/qcow2, "Header").
struct Field {
  const char* name;
  size_t byte;
};
inline constexpr Field kMagicField = {"magic", 0};
inline constexpr Field kVersionField = {"version", 4};
inline constexpr Field kBackingFileOffset = {"backing_file_offset", 8};
inline constexpr Field kBackingFileSize = {"backing_file_size", 16};
inline constexpr Field kClusterBits = {"cluster_bits", 20};
inline constexpr Field kSize = {"size", 24};
inline constexpr Field kCryptMethod = {"crypt_method", 32};
inline constexpr Field kL1Size = {"l1_size", 36};
inline constexpr Field kL1TableOffset = {"l1_table_offset", 40};
inline constexpr Field kRefcountTableOffset = {"refcount_table_offset", 48};
inline constexpr Field kRefcountTableClusters = {"refcount_table_clusters", 56};
inline constexpr Field kNbSnapshots = {"nb_snapshots", 60};
inline constexpr Field kSnapshotsOffset = {"snapshots_offset", 64};
inline constexpr Field kIncompatibleFeatures = {"incompatible_features", 72};
inline constexpr Field kCompatibleFeatures = {"compatible_features", 80};
inline constexpr Field kAutoclearFeatures = {"autoclear_features", 88};
inline constexpr Field kRefcountOrder = {"refcount_order", 96};
inline constexpr Field kHeaderLength = {"header_length", 100};
inline constexpr Field kCompressionTypeField = {"compression_type", 104};

inline constexpr uint32_t kVersion2Length = 72;
inline constexpr uint32_t kVersion3Length = 104;  // At least.

// Types of header extensions.
enum Extension : uint32_t {
  kEnd = 0,
  kBackingFormat = 0xe2792aca,
  kFeatureNames = 0x6803f857,
  kBitmaps = 0x23852875,
  kFullDiskEncryption = 0x0537be77,
  kDataFileName = 0x44415441,
};

// An entry of the feature name table: type, bit, name filled up with NULs.
inline constexpr size_t kFeatureNameBytes = 48;

inline constexpr uint64_t kMaxRefcountTableBytes = 8 << 20;
inline constexpr uint32_t kMaxBackingName = 1023;

}  // namespace pellucid::qcow2

#endif  // PELLUCID_ENGINE_QCOW2_HEADER_FIELDS_H_
