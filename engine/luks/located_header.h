#ifndef PELLUCID_ENGINE_LUKS_LOCATED_HEADER_H_
#define PELLUCID_ENGINE_LUKS_LOCATED_HEADER_H_

#include <cstdint>
#include <string>

#include "engine/block_device.h"
#include "engine/image_info.h"
#include "engine/luks/volume_header.h"

namespace pellucid::luks {

// A LUKS header as it was found: in a raw volume, in a file of its own, or
// inside a qcow2 image.
struct LocatedHeader {
  BlockDevice* device = nullptr;  // Borrowed: what holds header and keyslots.
  uint64_t offset = 0;            // Of the header in `device`.
  std::string file_name;          // For messages.
  VolumeHeader header;
};

// Where a header is looked for.
enum class Place { kInPlace, kDetached, kEmbedded };

// Reads and checks the LUKS header at `offset` of `device`. `area_bytes` bounds
// header and keyslots together. Throws CorruptImage, Unsupported (also for
// LUKS2 embedded in qcow2, which does not exist) and IoError.
LocatedHeader ReadLuksHeader(BlockDevice& device, uint64_t offset,
                             uint64_t area_bytes, const std::string& file_name,
                             Place place);

// Is `device` a LUKS volume, with its header in place? Looks for the magic, and
// behind it for the second copy of a damaged LUKS2 header, unless something
// else begins there. Throws as Read() does.
bool IsLuksVolume(BlockDevice& device);

// Refuses a payload too short for the volume's segments. Throws CorruptImage,
// which calls the payload `payload_name`.
void CheckPayload(const LocatedHeader& located, uint64_t payload_size,
                  const std::string& payload_name);

// Bytes of plaintext over a payload that CheckPayload() has accepted.
uint64_t PlaintextBytes(const VolumeHeader& header, uint64_t payload_size);

// Bytes at the payload's end that are no whole sector and not shown.
uint64_t CutBytes(const VolumeHeader& header, uint64_t payload_size);

// What the header says, for people.
LuksInfo Describe(const LocatedHeader& located, Place place);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LOCATED_HEADER_H_
