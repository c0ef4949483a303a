#include "engine/luks/header_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <span>

#include "engine/errors.h"

namespace pellucid::luks {
namespace {

// Of 512 bytes of noise some 221 of the 256 values occur, give or take 5. Less
// than that is text, zeros or a table, never key material.
constexpr size_t kLeastValues = 128;

bool IsNoise(std::span<const std::byte> sector) {
  std::bitset<256> values;
  for (const std::byte b : sector) values.set(std::to_integer<size_t>(b));
  return values.count() >= kLeastValues;
}

void CheckKeyMaterial(const LocatedHeader& located, const Keyslot& slot,
                      Findings& findings) {
  const uint64_t begin = located.offset + slot.area_offset;
  // Whole sectors: the last one may hold something else behind the key.
  const uint64_t sectors = uint64_t{slot.key_size} * slot.stripes / kSectorSize;
  std::array<std::byte, kSectorSize> sector;
  uint64_t overwritten = 0;
  uint64_t first = 0;
  for (uint64_t i = 0; i < sectors; ++i) {
    ReadZeroPadded(*located.device, begin + i * kSectorSize, sector);
    if (IsNoise(sector)) continue;
    if (overwritten++ == 0) first = begin + i * kSectorSize;
  }
  if (overwritten == 0) return;
  findings.Add(FindingKind::kKeyslot, first, [&] {
    return fmt::format(
        "{}: keyslot {}: {} of the {} sectors of its key material (from byte "
        "{}) are overwritten, the first at byte {}; its passphrase opens "
        "nothing any more",
        located.file_name, slot.id, overwritten, sectors, begin, first);
  });
}

}  // namespace

std::optional<LocatedHeader> CheckHeader(BlockDevice& device, uint64_t offset,
                                         uint64_t area_bytes,
                                         const std::string& file_name,
                                         Place place, Findings& findings) {
  LocatedHeader located;
  try {
    located = ReadLuksHeader(device, offset, area_bytes, file_name, place);
  } catch (const CorruptImage& error) {
    findings.Add(FindingKind::kLuksHeader, offset,
                 [&] { return std::string(error.what()); });
    return std::nullopt;
  } catch (const Unsupported& error) {
    findings.Add(FindingKind::kUnseen, offset,
                 [&] { return std::string(error.what()); });
    return std::nullopt;
  }
  for (const std::string& warning : located.header.warnings) {
    findings.Add(FindingKind::kLuksCopy, offset, [&] { return warning; });
  }
  if (located.header.keyslots.empty()) {
    findings.Add(FindingKind::kNoKeyslot, offset, [&] {
      return fmt::format(
          "{}: the LUKS header at byte {} has no keyslot in use: no passphrase "
          "opens it, only the volume key",
          file_name, offset);
    });
  }
  for (const Keyslot& slot : located.header.keyslots) {
    CheckKeyMaterial(located, slot, findings);
  }
  return located;
}

}  // namespace pellucid::luks
