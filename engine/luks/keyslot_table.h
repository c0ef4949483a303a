#ifndef PELLUCID_ENGINE_LUKS_KEYSLOT_TABLE_H_
#define PELLUCID_ENGINE_LUKS_KEYSLOT_TABLE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/luks/located_header.h"
#include "engine/luks/volume_header.h"
#include "engine/writable_device.h"

namespace pellucid::luks {

// Where a header that is to be changed stands.
struct WritableHeader {
  WritableDevice* device = nullptr;  // Borrowed.
  uint64_t offset = 0;               // Of the header in `device`.
  uint64_t area_bytes = 0;  // From there to the end of what may hold keyslots.
  std::string file_name;    // For messages.
  Place place = Place::kInPlace;
};

// The part of a header that says which keyslots there are. A change is durable
// when its call returns; if the call is cut off anywhere, the header says what
// it said before or what it was to say. Not synchronised.
class KeyslotTable {
 public:
  virtual ~KeyslotTable() = default;

  // The header as it stands now, with its device.
  virtual const LocatedHeader& located() const = 0;

  // A keyslot for a key of `key_bytes` bytes with the number `id`, or the
  // lowest free one, and an area that nothing uses; kdf and priority are left
  // open. With LUKS2, `id` may be in use already: the keyslot is then a
  // replacement. Throws UsageError if there is no room, or no such keyslot.
  virtual Keyslot Reserve(std::optional<unsigned> id,
                          size_t key_bytes) const = 0;

  // Refuses a keyslot that Commit() would have no room for. Throws UsageError.
  virtual void CheckRoomFor(const Keyslot& slot) const = 0;

  // Makes the header refer to `slot`, instead of to the one with its number if
  // there is one. The volume's digest covers it.
  virtual void Commit(const Keyslot& slot) = 0;

  // Makes the header forget the keyslot.
  virtual void Remove(unsigned id) = 0;
};

// Throws as ReadLuksHeader() does.
std::unique_ptr<KeyslotTable> OpenKeyslotTable(const WritableHeader& header);

// One for each format.
std::unique_ptr<KeyslotTable> OpenLuks1Keyslots(const WritableHeader& header);
std::unique_ptr<KeyslotTable> OpenLuks2Keyslots(const WritableHeader& header);

}  // namespace pellucid::luks

#endif  // PELLUCID_ENGINE_LUKS_KEYSLOT_TABLE_H_
