#ifndef PELLUCID_ENGINE_LUKS_UNLOCK_H_
#define PELLUCID_ENGINE_LUKS_UNLOCK_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "crypto/sector_cipher.h"
#include "engine/block_device.h"
#include "engine/image_info.h"
#include "engine/luks/luks1_header.h"
#include "engine/passphrase_source.h"

namespace pellucid::luks {

// A LUKS header as it was found: in a raw volume, in a file of its own, or
// inside a qcow2 image.
struct LocatedHeader {
  BlockDevice* device = nullptr;  // Borrowed: what holds header and keyslots.
  uint64_t offset = 0;            // Of the header in `device`.
  std::string file_name;          // For messages.
  Luks1Header header;

  // First byte of the ciphertext within the payload.
  uint64_t payload_begin() const { return header.payload_offset * kSectorSize; }
};

// Reads and checks the LUKS header at `offset` of `device`. `area_bytes` bounds
// header and key material together. Throws CorruptImage, Unsupported (LUKS2, or
// no LUKS at all) and IoError.
LocatedHeader ReadLuksHeader(BlockDevice& device, uint64_t offset,
                             uint64_t area_bytes, const std::string& file_name,
                             bool payload_follows);

// Asks `passphrases` for `layer` until one opens a keyslot, `keyslot` alone if
// it is given, and makes the cipher of the payload. Refuses an algorithm that
// is not there before it asks. Throws WrongPassphrase, Unsupported,
// CorruptImage and IoError. Holds no key when it returns but the cipher's.
std::unique_ptr<crypto::SectorCipher> Unlock(const LocatedHeader& located,
                                             const std::string& layer,
                                             std::optional<unsigned> keyslot,
                                             PassphraseSource& passphrases);

// What the header says, for people. `place` as in LuksInfo.
LuksInfo Describe(const LocatedHeader& located, const std::string& place);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_UNLOCK_H_
