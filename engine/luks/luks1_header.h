#ifndef PELLUCID_ENGINE_LUKS_LUKS1_HEADER_H_
#define PELLUCID_ENGINE_LUKS_LUKS1_HEADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "engine/luks/volume_header.h"

namespace pellucid::luks {

inline constexpr size_t kLuks1HeaderBytes = 592;
inline constexpr size_t kLuks1Keyslots = 8;
inline constexpr size_t kLuks1KeyslotBytes = 48;
inline constexpr size_t kLuks1DigestBytes = 20;
inline constexpr size_t kLuks1TextBytes = 32;    // Of a name, a NUL included.
inline constexpr uint32_t kLuks1Stripes = 4000;  // The only number in use.

// The version that the first bytes of a LUKS volume give, right or wrong;
// nothing if the magic is not there.
std::optional<unsigned> LuksVersion(std::span<const std::byte> start);

// A key slot of the partition header, section 3 of "LUKS1 On-Disk Format".
struct Luks1Keyslot {
  bool active = false;
  uint32_t iterations = 0;
  std::array<std::byte, 32> salt{};
  uint32_t key_material_offset = 0;  // In sectors from the header's start.
  uint32_t stripes = 0;
};

// The partition header in host byte order; names as in the specification.
struct Luks1Header {
  std::string cipher_name;
  std::string cipher_mode;
  std::string hash_spec;
  uint32_t payload_offset = 0;  // In sectors; 0 in headers made to be detached.
  uint32_t key_bytes = 0;
  std::array<std::byte, kLuks1DigestBytes> mk_digest{};
  std::array<std::byte, 32> mk_digest_salt{};
  uint32_t mk_digest_iterations = 0;
  std::string uuid;
  std::array<Luks1Keyslot, kLuks1Keyslots> keyslots;

  // Bytes that the anti-forensic split of a key takes, in whole sectors.
  uint64_t key_material_bytes() const;
};

// Where the header stands, which decides what its offsets must respect.
struct Luks1Place {
  std::string file_name;         // For messages.
  uint64_t offset = 0;           // Of the header in that file, for messages.
  uint64_t area_bytes = 0;       // Bytes from the header's start to the end of
                                 // what may hold key material.
  bool payload_follows = false;  // In place: key material ends before the
                                 // payload begins.
};

// Reads the header from its first kLuks1HeaderBytes (fewer are refused) and
// checks every field against the format, `place` and our limits. Throws
// CorruptImage, naming the field and its byte in the file.
Luks1Header ParseLuks1Header(std::span<const std::byte> bytes,
                             const Luks1Place& place);

// The inverse. Requires texts shorter than kLuks1TextBytes and, of the
// uuid, 40.
std::array<std::byte, kLuks1HeaderBytes> EncodeLuks1Header(
    const Luks1Header& header);

// One key slot as it stands in the header, and where: bytes from the header's
// start. Its first four bytes say whether it is active.
std::array<std::byte, kLuks1KeyslotBytes> EncodeLuks1Keyslot(
    const Luks1Keyslot& slot);
uint64_t Luks1KeyslotByte(unsigned keyslot);

// The same in the words of LUKS2: keyslots in use, one digest, one segment.
VolumeHeader ToVolumeHeader(const Luks1Header& header);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LUKS1_HEADER_H_
