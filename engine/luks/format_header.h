#ifndef PELLUCID_ENGINE_LUKS_FORMAT_HEADER_H_
#define PELLUCID_ENGINE_LUKS_FORMAT_HEADER_H_

#include <cstdint>
#include <string>

#include "crypto/secret_bytes.h"
#include "engine/luks/kdf_cost.h"
#include "engine/writable_device.h"

namespace pellucid::luks {

// Where the payload will be, which decides the header's offsets.
enum class Layout {
  kInPlace,   // Behind the header in the same file: payload at 2 MiB (LUKS1) or
              // 16 MiB (LUKS2), as cryptsetup and QEMU put it.
  kDetached,  // In another file, from its first byte.
  kEmbedded,  // In qcow2: LUKS1 only; the offset is written but means nothing.
};

struct FormatOptions {
  unsigned version = 2;
  Layout layout = Layout::kInPlace;
  std::string cipher = "aes";
  std::string mode = "xts-plain64";
  uint32_t key_bytes = 64;
  uint32_t sector_size = 512;   // LUKS2.
  std::string hash = "sha256";  // Of anti-forensic split and digest; with LUKS1
                                // of the keyslots as well.
  KdfCost kdf;                  // With LUKS1, the type must be pbkdf2.
  std::string uuid;             // Made up if empty.
  std::string label;            // LUKS2; at most 47 bytes.
};

// Bytes that header and keyslots take: the least size of the device that
// FormatHeader() is given, and with kInPlace the payload's offset.
uint64_t HeaderBytes(const FormatOptions& options);

// Refuses what FormatHeader() would refuse, before anything is written. Throws
// Unsupported for an algorithm that is not there, and UsageError for options
// that contradict each other or the format.
void CheckFormatOptions(const FormatOptions& options);

// Writes a new header with one keyslot that `passphrase` opens at the start of
// `device`, flushes it, and returns the new volume key. Whatever was in the
// first HeaderBytes(), such as older headers and key material, becomes zeros.
// Throws as CheckFormatOptions() does, and IoError.
crypto::SecretBytes FormatHeader(WritableDevice& device,
                                 const FormatOptions& options,
                                 const crypto::SecretBytes& passphrase);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_FORMAT_HEADER_H_
