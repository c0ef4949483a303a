#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "engine/errors.h"
#include "engine/luks/keyslot_table.h"
#include "engine/luks/luks1_header.h"

namespace pellucid::luks {
namespace {

constexpr size_t kActiveWordBytes = 4;

class Luks1Keyslots : public KeyslotTable {
 public:
  explicit Luks1Keyslots(const WritableHeader& header) : header_(header) {
    Reload();
  }

  const LocatedHeader& located() const override { return located_; }

  Keyslot Reserve(std::optional<unsigned> id,
                  size_t /*key_bytes*/) const override {
    const unsigned index = id ? CheckFree(*id) : LowestFree();
    const Luks1Keyslot& stored = luks1_.keyslots[index];
    Keyslot slot;
    slot.id = index;
    slot.key_size = luks1_.key_bytes;
    slot.af_hash = luks1_.hash_spec;
    slot.stripes = stored.stripes;
    slot.area_offset = stored.key_material_offset * kSectorSize;
    slot.area_size = luks1_.key_material_bytes();
    slot.area_encryption = {.cipher = luks1_.cipher_name,
                            .mode = luks1_.cipher_mode};
    slot.area_key_size = luks1_.key_bytes;
    if (slot.area_offset + slot.area_size > header_.area_bytes) {
      throw UsageError(fmt::format(
          "{}: keyslot {} has no room: its key material would end {} bytes "
          "from the header's start, where only {} are",
          header_.file_name, index, slot.area_offset + slot.area_size,
          header_.area_bytes));
    }
    return slot;
  }

  void CheckRoomFor(const Keyslot& /*slot*/) const override {}

  void Commit(const Keyslot& slot) override {
    Luks1Keyslot& stored = luks1_.keyslots[slot.id];
    stored.iterations = slot.kdf.iterations;
    std::ranges::copy(slot.kdf.salt, stored.salt.begin());
    // The entry of keyslot 6 lies across two sectors: it is complete before
    // the one word that makes it count.
    stored.active = false;
    Write(slot.id, EncodeLuks1Keyslot(stored));
    SetActive(slot.id, true);
    Reload();
  }

  void Remove(unsigned id) override {
    SetActive(id, false);
    Luks1Keyslot& stored = luks1_.keyslots[id];
    stored.iterations = 0;
    std::ranges::fill(stored.salt, std::byte{0});
    Write(id, EncodeLuks1Keyslot(stored));
    Reload();
  }

 private:
  void Reload() {
    located_ =
        ReadLuksHeader(*header_.device, header_.offset, header_.area_bytes,
                       header_.file_name, header_.place);
    std::array<std::byte, kLuks1HeaderBytes> bytes;
    header_.device->Read(header_.offset, bytes);
    luks1_ = ParseLuks1Header(
        bytes, {.file_name = header_.file_name,
                .offset = header_.offset,
                .area_bytes = header_.area_bytes,
                .payload_follows = header_.place == Place::kInPlace});
  }

  unsigned CheckFree(unsigned id) const {
    if (id >= kLuks1Keyslots) {
      throw UsageError(fmt::format("{}: LUKS1 has keyslots 0 to {}, not {}",
                                   header_.file_name, kLuks1Keyslots - 1, id));
    }
    if (luks1_.keyslots[id].active) {
      throw UsageError(
          fmt::format("{}: keyslot {} is in use; name a free one, or none",
                      header_.file_name, id));
    }
    return id;
  }

  unsigned LowestFree() const {
    const auto free =
        std::ranges::find(luks1_.keyslots, false, &Luks1Keyslot::active);
    if (free == luks1_.keyslots.end()) {
      throw UsageError(fmt::format(
          "{}: all {} keyslots are in use; remove one first with `pellucid key "
          "remove`",
          header_.file_name, kLuks1Keyslots));
    }
    return static_cast<unsigned>(free - luks1_.keyslots.begin());
  }

  void Write(unsigned id, std::span<const std::byte> entry) {
    header_.device->Write(header_.offset + Luks1KeyslotByte(id), entry);
    header_.device->Flush();
  }

  void SetActive(unsigned id, bool active) {
    luks1_.keyslots[id].active = active;
    const auto entry = EncodeLuks1Keyslot(luks1_.keyslots[id]);
    Write(id, std::span(entry).first(kActiveWordBytes));
  }

  const WritableHeader header_;
  Luks1Header luks1_;
  LocatedHeader located_;
};

}  // namespace

std::unique_ptr<KeyslotTable> OpenLuks1Keyslots(const WritableHeader& header) {
  return std::make_unique<Luks1Keyslots>(header);
}

std::unique_ptr<KeyslotTable> OpenKeyslotTable(const WritableHeader& header) {
  const LocatedHeader located =
      ReadLuksHeader(*header.device, header.offset, header.area_bytes,
                     header.file_name, header.place);
  return located.header.version == 1 ? OpenLuks1Keyslots(header)
                                     : OpenLuks2Keyslots(header);
}

}  // namespace pellucid::luks
