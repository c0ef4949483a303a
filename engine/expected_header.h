#ifndef PELLUCID_ENGINE_EXPECTED_HEADER_H_
#define PELLUCID_ENGINE_EXPECTED_HEADER_H_

#include <string>

#include "engine/block_device.h"
#include "engine/luks/volume_header.h"

namespace pellucid {

// Which LUKS header the user takes for the right one; empty fields do not care.
struct ExpectedHeader {
  std::string uuid;    // In either case.
  std::string sha256;  // Of the detached header's file; hexadecimal digits.

  bool any() const { return !uuid.empty() || !sha256.empty(); }
};

// Throw UsageError, naming what is there and what was expected, if the header
// is another one. The file is read whole. Throw IoError.
void CheckUuid(const ExpectedHeader& expected, const luks::VolumeHeader& header,
               const std::string& file_name);
void CheckHeaderFile(const ExpectedHeader& expected, BlockDevice& file,
                     const std::string& file_name);

// There is none although one was expected. Throws UsageError.
[[noreturn]] void ThrowNoHeader(const std::string& file_name);

}  // namespace pellucid

#endif  // PELLUCID_ENGINE_EXPECTED_HEADER_H_
