#include "tests/fuzz/fuzzed_header.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/borrowed_device.h"
#include "engine/findings.h"
#include "engine/luks/header_check.h"
#include "engine/luks/header_copy.h"
#include "engine/luks/key_material.h"
#include "engine/luks/keyslot_editor.h"
#include "engine/luks/luks_device.h"
#include "engine/luks/unlock.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/fuzzed_image.h"

namespace pellucid {
namespace {

constexpr unsigned kUnlocks = 1 << 8;
constexpr unsigned kChangesKeyslots = 1 << 9;
constexpr uint32_t kCheapIterations = 2000;
constexpr uint64_t kCheapWork = 2048;  // Passes times KiB of Argon2.
constexpr uint32_t kCheapKeyBytes = 64;

const std::string kName = "header";

class OnePassphrase : public PassphraseSource {
 public:
  std::optional<crypto::SecretBytes> Get(std::string_view,
                                         unsigned attempt) override {
    if (attempt > 0) return std::nullopt;
    return crypto::SecretBytes(std::as_bytes(std::span("fuzz", 4)));
  }
  void Accepted() override {}
};

bool IsCheap(const luks::Kdf& kdf) {
  return kdf.type == "pbkdf2"
             ? kdf.iterations <= kCheapIterations
             : uint64_t{kdf.time} * kdf.memory_kib <= kCheapWork;
}

bool IsCheap(const luks::VolumeHeader& header) {
  return header.keyslots.size() <= 4 &&
         std::ranges::all_of(header.keyslots,
                             [](const luks::Keyslot& slot) {
                               return IsCheap(slot.kdf) &&
                                      slot.key_size <= kCheapKeyBytes &&
                                      slot.area_key_size <= kCheapKeyBytes;
                             }) &&
         std::ranges::all_of(header.digests, [](const luks::Digest& digest) {
           return IsCheap(digest.kdf);
         });
}

void ReadPayload(SparseDevice& file, const luks::LocatedHeader& located) {
  luks::CheckPayload(located, file.size(), "payload");
  uint32_t key_size = 0;
  const luks::Digest* const digest = luks::VolumeDigest(located.header);
  for (const luks::Keyslot& slot : located.header.keyslots) {
    if (digest != nullptr && digest->covers_keyslot(slot.id)) {
      key_size = slot.key_size;
    }
  }
  if (key_size == 0) return;
  const std::vector<std::byte> key(key_size, std::byte{0x31});
  luks::LuksDevice device(
      std::unique_ptr<BlockDevice>(std::make_unique<BorrowedDevice>(file)),
      located.header, key);
  Require(device.size() == luks::PlaintextBytes(located.header, file.size()),
          "two answers to how long the plaintext is");
  ReadAround(device);
}

void ChangeKeyslots(SparseDevice& file, const luks::LocatedHeader& located,
                    luks::Place place) {
  const std::unique_ptr<SparseDevice> copy = file.Copy();
  const luks::WritableHeader header = {.device = copy.get(),
                                       .area_bytes = file.size(),
                                       .file_name = kName,
                                       .place = place};
  luks::KeyslotEditor editor(header);
  const luks::Digest* const digest = luks::VolumeDigest(located.header);
  if (digest == nullptr || located.header.keyslots.empty()) return;
  luks::NewKeyslot wanted;
  wanted.kdf.type = "pbkdf2";
  wanted.kdf.iterations = 1000;
  const crypto::SecretBytes key(located.header.keyslots.front().key_size);
  const crypto::SecretBytes passphrase(std::as_bytes(std::span("new", 3)));
  Attempt([&] { editor.Add(key, passphrase, wanted); });
  Attempt([&] {
    editor.Change(located.header.keyslots.front().id, key, passphrase, wanted);
  });
  Attempt([&] {
    editor.Remove(located.header.keyslots.front().id, /*force=*/true);
  });
  Require(Attempt([&] {
            luks::ReadLuksHeader(*copy, 0, copy->size(), kName, place);
          }),
          "a header that is damaged by changing its keyslots");
}

}  // namespace

void ExerciseHeader(SparseDevice& file, luks::Place place,
                    unsigned for_target) {
  std::optional<luks::LocatedHeader> located;
  if (place == luks::Place::kInPlace) luks::IsLuksVolume(file);
  const bool usable = Attempt([&] {
    located = luks::ReadLuksHeader(file, 0, file.size(), kName, place);
  });
  Findings findings;
  Attempt([&] {
    const auto checked =
        luks::CheckHeader(file, 0, file.size(), kName, place, findings);
    Require(checked.has_value() == usable,
            "a header that a check and a reader judge differently");
  });
  if (!usable) return;
  luks::Describe(*located, place);
  Attempt([&] { ReadPayload(file, *located); });
  Attempt([&] { luks::CopyHeader(*located, file.size()); });
  if (!IsCheap(located->header)) return;
  OnePassphrase passphrase;
  if ((for_target & kUnlocks) != 0) {
    Attempt([&] { luks::Unlock(*located, kName, std::nullopt, passphrase); });
  }
  if ((for_target & kChangesKeyslots) != 0) {
    Attempt([&] { ChangeKeyslots(file, *located, place); });
  }
}

}  // namespace pellucid
