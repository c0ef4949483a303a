#include "engine/autoclear_on_write.h"

#include <array>

#include "engine/big_endian.h"
#include "engine/qcow2/header_fields.h"

namespace pellucid {
namespace {

constexpr uint64_t kKnownBits =
    qcow2::kBitmapsConsistent | qcow2::kRawExternalData;

}  // namespace

void AutoclearOnWrite::Write(uint64_t offset, std::span<const std::byte> in) {
  std::call_once(cleared_, [this] { ClearUnknownBits(); });
  file_.Write(offset, in);
}

void AutoclearOnWrite::WriteZeroes(uint64_t offset, uint64_t length,
                                   ZeroMode mode) {
  std::call_once(cleared_, [this] { ClearUnknownBits(); });
  file_.WriteZeroes(offset, length, mode);
}

// Version 2 has no such field, and none of the bits.
void AutoclearOnWrite::ClearUnknownBits() {
  if ((autoclear_features_ & ~kKnownBits) == 0) return;
  std::array<std::byte, sizeof(uint64_t)> field;
  StoreBigEndian(field, 0, autoclear_features_ & kKnownBits);
  file_.Write(qcow2::kAutoclearFeatures.byte, field);
  file_.Flush();
}

}  // namespace pellucid
