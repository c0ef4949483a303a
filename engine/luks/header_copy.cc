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
  const uint64_t begin = area.keyslot.area_offset;
  return {.begin = begin, .end = begin + area.bytes.size()};
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

bool Overlaps(const Range& range, const HeaderCopy& header) {
  return std::ranges::any_of(InUse(header), [&](const Range& other) {
    return range.begin < other.end && other.begin < range.end;
  });
}

// Where key material at `place` has to end. (A header file that is named as an
// image has no payload.)
uint64_t EndOfKeyslots(const WritableHeader& place, const HeaderCopy& copy) {
  return place.place == Place::kInPlace && copy.payload_offset != 0
             ? std::min(place.area_bytes, copy.payload_offset)
             : place.area_bytes;
}

// Has `header` the same keyslot in the same place?
bool Has(const HeaderCopy& header, const HeaderCopy::Area& area) {
  return std::ranges::any_of(header.areas, [&](const HeaderCopy::Area& other) {
    return other.keyslot.id == area.keyslot.id &&
           other.keyslot.area_offset == area.keyslot.area_offset &&
           other.keyslot.kdf.salt == area.keyslot.kdf.salt &&
           other.bytes == area.bytes;
  });
}

// Would a keyslot of one open the volume in the other?
bool CanShareKeyslots(const HeaderCopy& a, const HeaderCopy& b) {
  if (a.version != b.version || a.volume_digest != b.volume_digest) {
    return false;
  }
  if (a.version == 2) return a.luks2.hdr_size == b.luks2.hdr_size;
  return a.luks1.key_bytes == b.luks1.key_bytes &&
         a.luks1.cipher_name == b.luks1.cipher_name &&
         a.luks1.cipher_mode == b.luks1.cipher_mode &&
         a.luks1.hash_spec == b.luks1.hash_spec;
}

// `wanted` with a number and an area that neither header uses.
std::optional<Keyslot> FindSpare(const WritableHeader& place,
                                 const Keyslot& wanted, const HeaderCopy& copy,
                                 const HeaderCopy& present) {
  const uint64_t end = std::min(EndOfKeyslots(place, copy), present.size);
  Keyslot spare = wanted;
  const auto is_free = [&](uint64_t offset) {
    spare.area_offset = offset;
    const Range range = {.begin = offset, .end = offset + wanted.area_size};
    return range.end <= end && !Overlaps(range, copy) &&
           !Overlaps(range, present);
  };
  if (copy.version == 1) {
    for (spare.id = 0; spare.id < kLuks1Keyslots; ++spare.id) {
      const Luks1Keyslot& slot = present.luks1.keyslots[spare.id];
      if (!slot.active && !copy.luks1.keyslots[spare.id].active &&
          is_free(slot.key_material_offset * kSectorSize)) {
        return spare;
      }
    }
    return std::nullopt;
  }
  const auto has_id = [&](unsigned id) {
    return std::ranges::any_of(
        present.areas,
        [&](const HeaderCopy::Area& area) { return area.keyslot.id == id; });
  };
  spare.id = 0;
  while (has_id(spare.id)) ++spare.id;
  for (const HeaderCopy* header : {&copy, &present}) {
    if (is_free(2 * header->luks2.hdr_size)) return spare;
    for (const HeaderCopy::Area& area : header->areas) {
      const Keyslot& slot = area.keyslot;
      if (is_free(RoundUpToPage(slot.area_offset + slot.area_size))) {
        return spare;
      }
    }
  }
  return std::nullopt;
}

// Adds the keyslots of `copy` to `present`, which is at `place`, as far as
// there is room. Gives what is there then.
HeaderCopy AddSpares(const WritableHeader& place, const HeaderCopy& copy,
                     HeaderCopy present) {
  WritableHeader header = place;
  header.place = Place::kDetached;  // `present` has been taken as it is.
  for (const HeaderCopy::Area& area : copy.areas) {
    if (!area.opens_volume || Has(present, area)) continue;
    const auto spare = FindSpare(place, area.keyslot, copy, present);
    if (!spare) continue;
    const auto table = OpenKeyslotTable(header);
    try {
      table->CheckRoomFor(*spare);
    } catch (const UsageError&) {
      continue;  // The text is full.
    }
    place.device->Write(place.offset + spare->area_offset, area.bytes);
    place.device->Flush();
    table->Commit(*spare);
    present = CopyHeader(table->located(), place.area_bytes);
  }
  return present;
}

// Its first sector may reach the disk without its second one, and the other way
// round: keyslots that are in `there` only are turned off when the rest is
// durable.
void WriteLuks1(const WritableHeader& place, const HeaderCopy& copy,
                const std::optional<HeaderCopy>& present,
                const std::optional<HeaderCopy>& there) {
  Luks1Header next = copy.luks1;
  bool has_spares = false;
  for (size_t id = 0; there && id < kLuks1Keyslots; ++id) {
    if (there->version != 1 || !there->luks1.keyslots[id].active ||
        present->luks1.keyslots[id].active) {
      continue;
    }
    next.keyslots[id] = there->luks1.keyslots[id];
    has_spares = true;
  }
  place.device->Write(place.offset, EncodeLuks1Header(next));
  place.device->Flush();
  if (!has_spares) return;
  place.device->Write(place.offset, EncodeLuks1Header(copy.luks1));
  place.device->Flush();
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
  const uint64_t end = EndOfKeyslots(place, copy);
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
  const Digest* const digest = VolumeDigest(located.header);
  if (digest != nullptr) {
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
    area.keyslot = slot;
    area.opens_volume = digest != nullptr && digest->covers_keyslot(slot.id);
    area.bytes.resize(slot.split_bytes());
    located.device->Read(located.offset + slot.area_offset, area.bytes);
    copy.used = std::max(copy.used, RangeOf(area).end);
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
  std::optional<HeaderCopy> there = present;
  if (present && CanShareKeyslots(copy, *present)) {
    there = AddSpares(place, copy, *present);
  }
  // From the second round on, `present` may open nothing any more.
  for (const bool in_use : {false, true}) {
    for (const HeaderCopy::Area& area : copy.areas) {
      if ((there && Overlaps(RangeOf(area), *there)) != in_use) continue;
      if (there && Has(*there, area)) continue;
      place.device->Write(place.offset + area.keyslot.area_offset, area.bytes);
    }
    place.device->Flush();
  }
  if (copy.version == 1) {
    WriteLuks1(place, copy, present, there);
  } else {
    WriteLuks2(place, copy, there);
  }
  if (!there) return;
  EraseLeftovers(place, copy, *there);
  place.device->Flush();
}

}  // namespace pellucid::luks
