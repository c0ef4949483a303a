#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>
#include <vector>

#include "crypto/base64.h"
#include "engine/errors.h"
#include "engine/luks/key_material.h"
#include "engine/luks/keyslot_table.h"
#include "engine/luks/luks1_header.h"
#include "engine/luks/luks2_document.h"

namespace pellucid::luks {
namespace {

constexpr unsigned kMaxKeyslots = 32;
constexpr uint64_t kAreaAlignment = 4096;

uint64_t RoundUpToArea(uint64_t bytes) {
  return (bytes + kAreaAlignment - 1) / kAreaAlignment * kAreaAlignment;
}

// Takes `keyslot` out of each member's list of keyslots.
void Unassign(Luks2Json& members, const std::string& keyslot) {
  for (auto& [id, member] : members.items()) {
    Luks2Json& list = member["keyslots"];
    for (size_t i = list.size(); i-- > 0;) {
      if (list[i] == keyslot) list.erase(i);
    }
  }
}

class Luks2Keyslots : public KeyslotTable {
 public:
  explicit Luks2Keyslots(const WritableHeader& header)
      : header_(header), document_(header) {
    Reload();
  }

  const LocatedHeader& located() const override { return located_; }

  Keyslot Reserve(std::optional<unsigned> id, size_t key_bytes) const override {
    const Digest* digest = VolumeDigest(located_.header);
    if (digest == nullptr) {
      throw UsageError(
          fmt::format("{}: is not encrypted: no digest covers its segments",
                      header_.file_name));
    }
    Keyslot slot;
    slot.id = id ? CheckNumber(*id) : LowestFree();
    slot.key_size = static_cast<uint32_t>(key_bytes);
    slot.af_hash = digest->kdf.hash;
    slot.stripes = kLuks1Stripes;
    // As cryptsetup has it, whatever the volume's cipher is.
    slot.area_encryption = {.cipher = "aes", .mode = "xts-plain64"};
    slot.area_key_size = 64;
    slot.area_size = RoundUpToArea(slot.split_bytes());
    slot.area_offset = FindGap(slot.area_size);
    return slot;
  }

  void CheckRoomFor(const Keyslot& slot) const override {
    document_.Check(With(slot));
  }

  void Commit(const Keyslot& slot) override {
    document_.Commit(With(slot));
    Reload();
  }

  void Remove(unsigned id) override {
    const std::string name = std::to_string(id);
    Luks2Json json = document_.json();
    json["keyslots"].erase(name);
    Unassign(json["digests"], name);
    Unassign(json["tokens"], name);
    document_.Commit(json);
    Reload();
  }

 private:
  void Reload() {
    located_ =
        ReadLuksHeader(*header_.device, header_.offset, header_.area_bytes,
                       header_.file_name, header_.place);
  }

  // The metadata with `slot` in it; what it does not say of a keyslot that it
  // replaces stays.
  Luks2Json With(const Keyslot& slot) const {
    const std::string name = std::to_string(slot.id);
    Luks2Json json = document_.json();
    Luks2Json& stored = json["keyslots"][name];
    const bool is_new = stored.is_null();
    const Luks2Json fresh = KeyslotToJson(slot);
    for (const auto& [key, value] : fresh.items()) {
      stored[key] = value;
    }
    if (slot.priority == Priority::kNormal) stored.erase("priority");
    if (is_new) {
      const Digest* digest = VolumeDigest(located_.header);
      json["digests"][std::to_string(digest->id)]["keyslots"].push_back(name);
    }
    return json;
  }

  unsigned CheckNumber(unsigned id) const {
    if (id < kMaxKeyslots) return id;
    throw UsageError(fmt::format("{}: LUKS2 has keyslots 0 to {}, not {}",
                                 header_.file_name, kMaxKeyslots - 1, id));
  }

  unsigned LowestFree() const {
    for (unsigned id = 0; id < kMaxKeyslots; ++id) {
      if (!document_.json()["keyslots"].contains(std::to_string(id))) return id;
    }
    throw UsageError(fmt::format(
        "{}: all {} keyslots are in use; remove one first with `pellucid key "
        "remove`",
        header_.file_name, kMaxKeyslots));
  }

  // Where the keyslots area ends: as the metadata says, and never in the
  // payload or behind the file's end.
  uint64_t AreaEnd() const {
    const uint64_t begin = 2 * document_.copies().newest.hdr_size;
    uint64_t end = header_.area_bytes;
    const Luks2Json& config = document_.json()["config"];
    uint64_t size = 0;
    if (config.contains("keyslots_size") &&
        config["keyslots_size"].is_string()) {
      const auto& text = config["keyslots_size"].get_ref<const std::string&>();
      std::from_chars(text.data(), text.data() + text.size(), size);
    }
    end = std::min(end, begin + std::min(size, end));
    if (header_.place != Place::kInPlace) return end;
    for (const Segment& segment : located_.header.segments) {
      end = std::min(end, segment.offset);
    }
    return end;
  }

  // The lowest offset with `size` bytes that no keyslot has.
  uint64_t FindGap(uint64_t size) const {
    std::vector<const Keyslot*> slots;
    for (const Keyslot& slot : located_.header.keyslots) slots.push_back(&slot);
    std::ranges::sort(slots, {}, &Keyslot::area_offset);
    uint64_t at = 2 * document_.copies().newest.hdr_size;
    for (const Keyslot* slot : slots) {
      if (at + size <= slot->area_offset) break;
      at = std::max(at, RoundUpToArea(slot->area_offset + slot->area_size));
    }
    if (at + size > AreaEnd()) {
      throw UsageError(fmt::format(
          "{}: the keyslots area has no {} bytes left; remove a keyslot first "
          "with `pellucid key remove`",
          header_.file_name, size));
    }
    return at;
  }

  const WritableHeader header_;
  Luks2Document document_;
  LocatedHeader located_;
};

}  // namespace

std::unique_ptr<KeyslotTable> OpenLuks2Keyslots(const WritableHeader& header) {
  return std::make_unique<Luks2Keyslots>(header);
}

}  // namespace pellucid::luks
