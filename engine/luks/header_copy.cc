#include "engine/luks/header_copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <span>

#include "crypto/random_bytes.h"
#include "engine/errors.h"
#include "engine/luks/key_material.h"
#include "engine/luks/luks2_json.h"

namespace pellucid::luks {
namespace {

constexpr uint64_t kPageBytes = 4096;
// Above what cryptsetup makes (128 MiB).
constexpr uint64_t kMaxHeaderBytes = 1 << 30;

uint64_t RoundUpToPage(uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

void CopyLuks1(const LocatedHeader& located, uint64_t area_bytes,
               HeaderCopy& copy) {
  std::array<std::byte, kLuks1HeaderBytes> bytes;
  located.device->Read(located.offset, bytes);
  copy.luks1 = ParseLuks1Header(bytes, {.file_name = located.file_name,
                                        .offset = located.offset,
                                        .area_bytes = area_bytes,
                                        .payload_follows = false});
  copy.used = kLuks1HeaderBytes;
  for (const Luks1Keyslot& slot : copy.luks1.keyslots) {
    copy.size = std::max(copy.size, slot.key_material_offset * kSectorSize +
                                        copy.luks1.key_material_bytes());
  }
}

void CopyLuks2(const LocatedHeader& located, uint64_t area_bytes,
               HeaderCopy& copy) {
  copy.luks2 = ReadLuks2Copies(*located.device, located.offset, area_bytes,
                               located.file_name)
                   .newest;
  copy.used = 2 * copy.luks2.hdr_size;
  copy.size = copy.used;
  const auto json = Luks2Json::parse(copy.luks2.json);
  uint64_t keyslots_bytes = 0;
  const auto& config = json.at("config");
  if (config.contains("keyslots_size") && config["keyslots_size"].is_string()) {
    const auto& text = config["keyslots_size"].get_ref<const std::string&>();
    std::from_chars(text.data(), text.data() + text.size(), keyslots_bytes);
  }
  copy.size += std::min(keyslots_bytes, kMaxHeaderBytes);
}

// Bytes from the header's start on.
struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
};

Range RangeOf(const HeaderCopy::Area& area) {
  return {.begin = area.offset, .end = area.offset + area.bytes.size()};
}

// What `header` needs to open the volume, in order.
std::vector<Range> InUse(const HeaderCopy& header) {
  std::vector<Range> ranges = {{.begin = 0,
                                .end = header.version == 1
                                           ? uint64_t{kLuks1HeaderBytes}
                                           : 2 * header.luks2.hdr_size}};
  for (const HeaderCopy::Area& area : header.areas) {
    ranges.push_back(RangeOf(area));
  }
  std::ranges::sort(ranges, {}, &Range::begin);
  return ranges;
}

bool Overlaps(const HeaderCopy::Area& area, const HeaderCopy& header) {
  return std::ranges::any_of(InUse(header), [&](const Range& other) {
    return area.offset < other.end && other.begin < RangeOf(area).end;
  });
}

void WriteLuks2(const WritableHeader& place, const HeaderCopy& copy,
                const std::optional<HeaderCopy>& present) {
  Luks2Binary next = copy.luks2;
  bool second_first = false;
  if (present && present->version == 2) {
    next.seqid = std::max(next.seqid, present->luks2.seqid + 1);
    second_first = present->luks2.hdr_offset == 0;
  }
  std::array<uint64_t, 2> offsets = {0, next.hdr_size};
  if (second_first) std::ranges::reverse(offsets);
  for (const uint64_t offset : offsets) {
    next.hdr_offset = offset;
    place.device->Write(place.offset + offset, EncodeLuks2Copy(next));
    place.device->Flush();
  }
}

void WriteNoise(const WritableHeader& place, const Range& range) {
  if (range.begin >= range.end) return;
  std::vector<std::byte> noise(range.end - range.begin);
  crypto::FillRandom(noise);
  place.device->Write(place.offset + range.begin, noise);
}

// Puts noise over what opened the volume through `present` and is not part of
// `copy` or of its payload.
void EraseLeftovers(const WritableHeader& place, const HeaderCopy& copy,
                    const HeaderCopy& present) {
  std::vector<Range> leftovers;
  for (const HeaderCopy::Area& area : present.areas) {
    leftovers.push_back(RangeOf(area));
  }
  if (present.version == 2) {
    // It would be found again if the first copy were damaged.
    const uint64_t second = present.luks2.hdr_size;
    leftovers.push_back({.begin = second, .end = second + kLuks2BinaryBytes});
  }
  const uint64_t end =
      place.place == Place::kInPlace ? copy.payload_offset : place.area_bytes;
  for (Range rest : leftovers) {
    rest.end = std::min(rest.end, end);
    for (const Range& kept : InUse(copy)) {
      WriteNoise(place,
                 {.begin = rest.begin, .end = std::min(kept.begin, rest.end)});
      rest.begin = std::max(rest.begin, kept.end);
    }
    WriteNoise(place, rest);
  }
}

}  // namespace

HeaderCopy CopyHeader(const LocatedHeader& located, uint64_t area_bytes) {
  HeaderCopy copy;
  copy.version = located.header.version;
  copy.uuid = located.header.uuid;
  if (const Digest* digest = VolumeDigest(located.header)) {
    copy.volume_digest = digest->kdf.salt;
    std::ranges::copy(digest->value, std::back_inserter(copy.volume_digest));
  }
  copy.payload_offset =
      std::ranges::min(located.header.segments, {}, &Segment::offset).offset;
  if (copy.version == 1) {
    CopyLuks1(located, area_bytes, copy);
  } else {
    CopyLuks2(located, area_bytes, copy);
  }
  for (const Keyslot& slot : located.header.keyslots) {
    HeaderCopy::Area area;
    area.offset = slot.area_offset;
    area.bytes.resize(slot.split_bytes());
    located.device->Read(located.offset + area.offset, area.bytes);
    copy.used = std::max(copy.used, area.offset + area.bytes.size());
    copy.areas.push_back(std::move(area));
  }
  copy.size = RoundUpToPage(std::max(copy.size, copy.used));
  if (copy.size > kMaxHeaderBytes) {
    throw CorruptImage(
        fmt::format("{}: the LUKS header claims a keyslots area of {} bytes",
                    located.file_name, copy.size));
  }
  return copy;
}

std::optional<HeaderCopy> CopyHeaderIfReadable(const WritableHeader& place) {
  try {
    return CopyHeader(
        ReadLuksHeader(*place.device, place.offset, place.area_bytes,
                       place.file_name, Place::kDetached),
        place.area_bytes);
  } catch (const CorruptImage&) {
    return std::nullopt;
  }
}

void WriteHeaderCopy(const WritableHeader& place, const HeaderCopy& copy,
                     const std::optional<HeaderCopy>& present) {
  for (const bool in_use : {false, true}) {
    for (const HeaderCopy::Area& area : copy.areas) {
      if ((present && Overlaps(area, *present)) != in_use) continue;
      place.device->Write(place.offset + area.offset, area.bytes);
    }
    place.device->Flush();
  }
  if (copy.version == 1) {
    place.device->Write(place.offset, EncodeLuks1Header(copy.luks1));
    place.device->Flush();
  } else {
    WriteLuks2(place, copy, present);
  }
  if (!present) return;
  EraseLeftovers(place, copy, *present);
  place.device->Flush();
}

}  // namespace pellucid::luks
