#ifndef PELLUCID_ENGINE_NOISE_PROBE_H_
#define PELLUCID_ENGINE_NOISE_PROBE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/block_device.h"

namespace pellucid {

// Could these bytes be noise, as decryption with another volume's key makes it?
// Of random bytes one block of 4096 in a hundred million does not look so;
// tables, text, code and zeros never do, compressed data often does.
bool LooksLikeNoise(std::span<const std::byte> bytes);

// Is it out of the question that these bytes are noise? Random bytes do not
// look so once on all disks there are, compressed data seldom, and tables, text
// and code of at least 512 bytes nearly always.
bool CannotBeNoise(std::span<const std::byte> bytes);

// Finds out whether a volume decrypts to nothing but noise, that is whether its
// detached header may belong to another payload. Reads the first MiB, where
// partition tables and most file systems have something, the end, where others
// have theirs, and a few places in between. Only blocks that somebody has
// written count: zeros of ciphertext become noise under every key.
class NoiseProbe {
 public:
  // Notes which blocks of the ciphertext are written: the volume begins at
  // `offset` of `payload` and has `length` bytes. Throws as Read() does.
  NoiseProbe(BlockDevice& payload, uint64_t offset, uint64_t length);

  // Is there something in the volume, and none of it looks like anything?
  // Throws as Read() does.
  bool IsNoise(BlockDevice& plaintext) const;

 private:
  std::vector<uint64_t> written_;  // Offsets of blocks in the volume.
};

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_NOISE_PROBE_H_
