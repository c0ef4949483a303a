#ifndef PELLUCID_ENGINE_LUKS_LUKS2_HEADER_H_
#define PELLUCID_ENGINE_LUKS_LUKS2_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/block_device.h"

namespace pellucid::luks {

inline constexpr size_t kLuks2BinaryBytes = 4096;
inline constexpr size_t kLuks2LabelBytes = 48;  // A NUL included.

// One copy of the LUKS2 binary header and its JSON area, section 2 of the
// LUKS2 On-Disk Format Specification.
struct Luks2Binary {
  uint64_t hdr_size = 0;  // Binary header and JSON area, of one copy.
  uint64_t seqid = 0;
  std::string label;
  std::string uuid;
  std::string subsystem;
  uint64_t hdr_offset = 0;  // 0 for the first copy, hdr_size for the second.
  std::string json;         // Up to the first NUL.
  // The binary header as it is stored, kLuks2BinaryBytes of it, but for the
  // checksum, which is zeros.
  std::vector<std::byte> stored;
};

struct Luks2Copies {
  Luks2Binary newest;
  std::optional<uint64_t> first_seqid;  // Empty if that copy is damaged.
  std::optional<uint64_t> second_seqid;
  bool same_metadata = true;  // False if copies of the same age differ.
  std::vector<std::string> warnings;  // About the other copy.
};

// Reads both copies of the header at `offset` of `device`, whose first
// `area_bytes` bytes from there may hold it, and takes the valid one with the
// larger sequence number. The second is looked for at every place the format
// allows if the first is damaged. Throws CorruptImage if neither is valid, and
// IoError.
Luks2Copies ReadLuks2Copies(BlockDevice& device, uint64_t offset,
                            uint64_t area_bytes, const std::string& file_name);

// A copy as it is to be stored, copy.hdr_size bytes: copy.stored with the
// numbers of `copy`, a fresh salt and a checksum, and copy.json behind it.
// Throws UsageError if the text does not fit.
std::vector<std::byte> EncodeLuks2Copy(const Luks2Binary& copy);

// A new header without text: seqid 1, the first copy. Requires a label shorter
// than kLuks2LabelBytes and a uuid of 36 bytes.
Luks2Binary NewLuks2Binary(uint64_t hdr_size, const std::string& uuid,
                           const std::string& label);

// True if there is a valid second copy, wherever the format allows one.
bool HasSecondLuks2Copy(BlockDevice& device);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LUKS2_HEADER_H_
