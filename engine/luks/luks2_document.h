#ifndef PELLUCID_ENGINE_LUKS_LUKS2_DOCUMENT_H_
#define PELLUCID_ENGINE_LUKS_LUKS2_DOCUMENT_H_

#include <cstdint>
#include <string>

#include "engine/luks/keyslot_table.h"
#include "engine/luks/luks2_header.h"
#include "engine/luks/luks2_json.h"

namespace pellucid::luks {

// Both copies of a LUKS2 header, to be changed together: at every moment one
// valid copy is on disk. Not synchronised.
class Luks2Document {
 public:
  // Throws CorruptImage if there is no valid copy, and IoError.
  explicit Luks2Document(const WritableHeader& header);

  const Luks2Copies& copies() const { return copies_; }
  // The metadata of the newest copy.
  const Luks2Json& json() const { return json_; }

  // Throws UsageError if the text of `json` does not fit into the header, and
  // as ParseLuks2Metadata() does if it contradicts the format.
  void Check(const Luks2Json& json) const;

  // Checks `json` and makes it the metadata of both copies, one after the
  // other, durable when it returns. Copies that are damaged or older are
  // written first. Throws as Check() does, and IoError.
  void Commit(const Luks2Json& json);

  // Writes the newest copy over the other one if that is damaged or older;
  // false if there is nothing to do. Throws IoError.
  bool Repair();

 private:
  Luks2Binary Next(const Luks2Json& json) const;
  // Writes `copy` as the first or the second and flushes.
  void Write(Luks2Binary copy, bool first);

  const WritableHeader header_;
  Luks2Copies copies_;
  Luks2Json json_;
};

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_LUKS2_DOCUMENT_H_
