#include "engine/luks/luks2_document.h"

#include <fmt/format.h>

#include <utility>

#include "engine/errors.h"
#include "engine/luks/luks2_metadata.h"

namespace pellucid::luks {

Luks2Document::Luks2Document(const WritableHeader& header)
    : header_(header),
      copies_(ReadLuks2Copies(*header.device, header.offset, header.area_bytes,
                              header.file_name)),
      json_(Luks2Json::parse(copies_.newest.json, nullptr,
                             /*allow_exceptions=*/false)) {
  if (json_.is_discarded()) {
    throw CorruptImage(
        fmt::format("{}: the LUKS2 metadata is not JSON", header.file_name));
  }
}

Luks2Binary Luks2Document::Next(const Luks2Json& json) const {
  Luks2Binary next = copies_.newest;
  next.json = json.dump();
  ++next.seqid;
  return next;
}

void Luks2Document::Check(const Luks2Json& json) const {
  const Luks2Binary next = Next(json);
  EncodeLuks2Copy(next);
  ParseLuks2Metadata(next.json,
                     {.file_name = header_.file_name,
                      .json_offset = header_.offset + kLuks2BinaryBytes,
                      .header_bytes = 2 * next.hdr_size,
                      .area_bytes = header_.area_bytes,
                      .payload_follows = header_.place == Place::kInPlace});
}

void Luks2Document::Write(Luks2Binary copy, bool first) {
  copy.hdr_offset = first ? 0 : copy.hdr_size;
  header_.device->Write(header_.offset + copy.hdr_offset,
                        EncodeLuks2Copy(copy));
  header_.device->Flush();
  (first ? copies_.first_seqid : copies_.second_seqid) = copy.seqid;
  copies_.newest = std::move(copy);
}

void Luks2Document::Commit(const Luks2Json& json) {
  Check(json);
  const Luks2Binary next = Next(json);
  // The newest copy is the last to be overwritten. Of two that are equal, it
  // does not matter.
  const bool first_is_newest =
      copies_.first_seqid &&
      (!copies_.second_seqid || *copies_.first_seqid > *copies_.second_seqid);
  Write(next, /*first=*/!first_is_newest);
  Write(next, /*first=*/first_is_newest);
  json_ = json;
}

bool Luks2Document::Repair() {
  if (copies_.first_seqid == copies_.second_seqid && copies_.same_metadata) {
    return false;
  }
  const bool first_is_newest = copies_.first_seqid == copies_.newest.seqid;
  Write(copies_.newest, /*first=*/!first_is_newest);
  return true;
}

}  // namespace pellucid::luks
