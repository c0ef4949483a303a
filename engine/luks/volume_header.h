#ifndef PELLUCID_ENGINE_LUKS_VOLUME_HEADER_H_
#define PELLUCID_ENGINE_LUKS_VOLUME_HEADER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "crypto/sector_cipher.h"

namespace pellucid::luks {

// What a LUKS header says, LUKS1 or LUKS2, checked and in host byte order:
// LUKS1 is the LUKS2 volume with one digest and one segment. Names are those of
// the LUKS2 On-Disk Format Specification. Holds no secret.

inline constexpr uint64_t kSectorSize = 512;

// A cipher as headers spell it, "aes" and "xts-plain64".
struct Encryption {
  std::string cipher;
  std::string mode;
  size_t sector_size = kSectorSize;

  bool operator==(const Encryption&) const = default;
  // Throws crypto::UnsupportedAlgorithm.
  crypto::CipherSpec Spec() const {
    return crypto::ParseCipherSpec(cipher, mode);
  }
};

// How a passphrase becomes a key (keyslots) or a key its digest (digests).
struct Kdf {
  std::string type = "pbkdf2";  // pbkdf2, argon2i or argon2id.
  std::vector<std::byte> salt;
  std::string hash;  // pbkdf2 only, as the next one.
  uint32_t iterations = 0;
  uint32_t time = 0;  // argon2 only, as the next two.
  uint32_t memory_kib = 0;
  uint32_t cpus = 0;
};

enum class Priority { kIgnore = 0, kNormal = 1, kPrefer = 2 };

struct Keyslot {
  unsigned id = 0;
  Priority priority = Priority::kNormal;
  uint32_t key_size = 0;  // Of the key inside, in bytes.
  Kdf kdf;
  std::string af_hash;
  uint32_t stripes = 0;
  uint64_t area_offset = 0;  // From the header's start.
  uint64_t area_size = 0;
  Encryption area_encryption;
  uint32_t area_key_size = 0;

  // Bytes of the area that the anti-forensic split takes, in whole sectors.
  uint64_t split_bytes() const {
    const uint64_t bytes = uint64_t{key_size} * stripes;
    return (bytes + kSectorSize - 1) / kSectorSize * kSectorSize;
  }
};

struct Digest {
  unsigned id = 0;
  Kdf kdf;
  std::vector<std::byte> value;
  std::vector<unsigned> keyslots;
  std::vector<unsigned> segments;

  bool covers_keyslot(unsigned keyslot) const {
    return std::ranges::find(keyslots, keyslot) != keyslots.end();
  }
};

struct Segment {
  unsigned id = 0;
  uint64_t offset = 0;                   // In the payload.
  std::optional<uint64_t> size;          // Up to the payload's end if empty.
  std::optional<Encryption> encryption;  // Empty: linear, stored as plaintext.
  uint64_t iv_tweak = 0;                 // In 512-byte units.

  uint64_t sector_size() const {
    return encryption ? encryption->sector_size : kSectorSize;
  }
  // How much of a payload that CheckPayload() has accepted it shows: whole
  // sectors.
  uint64_t bytes(uint64_t payload_size) const {
    const uint64_t rest = payload_size - offset;
    return size.value_or(rest - rest % sector_size());
  }
};

struct Token {
  unsigned id = 0;
  std::string type;
  std::vector<unsigned> keyslots;
};

struct VolumeHeader {
  unsigned version = 1;
  std::string uuid;
  std::string label;
  std::string subsystem;
  std::vector<Keyslot> keyslots;  // Those in use.
  std::vector<Digest> digests;
  std::vector<Segment> segments;  // In the order of the plaintext.
  std::vector<Token> tokens;
  // What is wrong with the header without keeping it from being used, such as
  // a damaged copy; for people.
  std::vector<std::string> warnings;
};

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_VOLUME_HEADER_H_
