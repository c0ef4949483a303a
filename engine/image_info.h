#ifndef PELLUCID_ENGINE_IMAGE_INFO_H_
#define PELLUCID_ENGINE_IMAGE_INFO_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/partition_table.h"

namespace pellucid {

// What the metadata of an image says, without unlocking it. Holds no secret.

// A keyslot that is in use.
struct KeyslotInfo {
  unsigned index = 0;
  std::string kdf;          // "pbkdf2-sha256", "argon2id"
  uint32_t iterations = 0;  // PBKDF2.
  uint32_t time = 0;        // Argon2: passes, as the next two.
  uint32_t memory_kib = 0;
  uint32_t cpus = 0;
  unsigned priority = 1;  // 0 ignore, 1 normal, 2 prefer.
  uint32_t stripes = 0;
  uint64_t key_material_offset = 0;  // From the start of the header.
};

struct TokenInfo {
  unsigned index = 0;
  std::string type;
  std::vector<unsigned> keyslots;
};

struct LuksInfo {
  unsigned version = 1;
  std::string place;  // "in place", "detached" or "embedded".
  std::filesystem::path header_file;
  uint64_t header_offset = 0;  // Within header_file (or its guest data).
  std::string uuid;
  std::string label;   // LUKS2.
  std::string cipher;  // "aes"
  std::string mode;    // "xts-plain64"
  std::string hash;    // "sha256"
  unsigned key_bits = 0;
  uint64_t sector_size = 512;
  uint64_t payload_offset = 0;
  std::vector<KeyslotInfo> keyslots;
  std::vector<TokenInfo> tokens;
  // A damaged header copy, and what weakens the encryption (WeaknessesOf()).
  std::vector<std::string> warnings;
};

struct SnapshotInfo {
  std::string id;
  std::string name;
  uint64_t virtual_size = 0;
  uint64_t vm_state_size = 0;
  int64_t date_seconds = 0;  // Since 1970, UTC.
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock_nanoseconds = 0;
};

struct Qcow2Info {
  unsigned version = 0;
  uint64_t cluster_size = 0;
  unsigned refcount_bits = 0;
  bool extended_l2 = false;
  bool lazy_refcounts = false;
  bool dirty = false;
  bool corrupt = false;
  std::string compression;  // "zlib" or "zstd"
  std::string encryption;   // "none", "aes" or "luks"
  std::optional<LuksInfo> luks;
  std::string backing_file;    // As the image spells it; empty without one.
  std::string backing_format;  // Likewise.
  std::string data_file;
  bool data_file_raw = false;
  std::filesystem::path data_file_path;  // Where that is; empty: not opened.
  unsigned bitmaps = 0;
  // Of the active state, as far as the tables can be read.
  uint64_t total_clusters = 0;
  uint64_t allocated_clusters = 0;
  uint64_t compressed_clusters = 0;
  std::string unreadable_tables;  // Why some are left out; empty if none is.
  std::vector<SnapshotInfo> snapshots;
};

struct ImageInfo {
  std::filesystem::path file;
  std::string format;         // "raw" or "qcow2"
  uint64_t file_size = 0;     // Length of the host file.
  uint64_t disk_size = 0;     // What it occupies on the host.
  uint64_t virtual_size = 0;  // Of the plaintext.
  std::optional<Qcow2Info> qcow2;
  std::optional<Partition> partition;  // If it is all that is looked at.
  // Those of the disk's first 16 that hold a LUKS volume, by number. None is
  // looked for in a disk that cannot be read without a passphrase.
  std::vector<unsigned> luks_partitions;
  // The LUKS layer above the container, detached or in place, or in the
  // partition.
  std::optional<LuksInfo> luks;
  std::unique_ptr<ImageInfo> backing;  // Null without one.
  std::string backing_error;           // Why it could not be looked into.
  // What a reader should know of the container: weak encryption, plaintext in
  // it, marks of damage. The headers have warnings of their own.
  std::vector<std::string> warnings;
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_IMAGE_INFO_H_
