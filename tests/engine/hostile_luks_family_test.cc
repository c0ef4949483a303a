// The same family as hostile_family_test.cc of LUKS headers: every byte of the
// binary header flipped, every word replaced, of LUKS2 also in the JSON area
// and with a checksum that fits.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/hash.h"
#include "engine/errors.h"
#include "engine/findings.h"
#include "engine/luks/format_header.h"
#include "engine/luks/header_check.h"
#include "engine/luks/key_material.h"
#include "engine/luks/keyslot_editor.h"
#include "engine/luks/luks1_header.h"
#include "engine/luks/luks_device.h"
#include "engine/luks/unlock.h"
#include "tests/engine/hostile_session.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/recording_device.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;

constexpr uint64_t kPayloadBytes = 16 << 10;
// What a header asks for beyond this is the stated cost of its key derivation,
// and not measured here.
constexpr uint32_t kCheapIterations = 20'000;

SecretBytes Secret(std::string_view text) {
  return SecretBytes(std::as_bytes(std::span(text)));
}

KdfCost CheapKdf() {
  KdfCost cost;
  cost.type = "pbkdf2";
  cost.iterations = 1000;
  return cost;
}

bool IsCheap(const VolumeHeader& header) {
  const auto is_cheap = [](const Kdf& kdf) {
    return kdf.type == "pbkdf2" && kdf.iterations <= kCheapIterations;
  };
  return std::ranges::all_of(header.keyslots, is_cheap, &Keyslot::kdf) &&
         std::ranges::all_of(header.digests, is_cheap, &Digest::kdf);
}

class HostileLuksFamilyTest : public testing::TestWithParam<unsigned> {
 protected:
  HostileLuksFamilyTest() {
    FormatOptions options;
    options.version = GetParam();
    options.layout = Layout::kDetached;
    options.key_bytes = 32;
    options.kdf = CheapKdf();
    RecordingDevice device(Bytes(HeaderBytes(options)));
    FormatHeader(device, options, Secret("right"));
    good_ = device.bytes();
    // Most of it is room for keyslots that are not there.
    const LocatedHeader located = Located(device);
    const Keyslot& slot = located.header.keyslots.front();
    used_ = slot.area_offset + 2 * slot.area_size;
    good_.resize(std::min<uint64_t>(good_.size(), used_));
    seen_ = *Opened(good_);
  }

  static LocatedHeader Located(BlockDevice& device) {
    return ReadLuksHeader(device, 0, device.size(), "header", Place::kDetached);
  }

  // The plaintext over a payload of zeros; nothing if the header makes that
  // dear.
  static std::optional<Bytes> Opened(const Bytes& file) {
    MemoryDevice device(file);
    const LocatedHeader located = Located(device);
    CheckPayload(located, kPayloadBytes, "payload");
    Describe(located, Place::kDetached);
    if (!IsCheap(located.header)) return std::nullopt;
    KnownPassphrases passphrase({"right"});
    const SecretBytes key = Unlock(located, "header", std::nullopt, passphrase);
    LuksDevice volume(std::unique_ptr<BlockDevice>(
                          std::make_unique<MemoryDevice>(Bytes(kPayloadBytes))),
                      located.header, key.bytes());
    Bytes content(volume.size());
    volume.Read(0, content);
    return content;
  }

  void Check(const Bytes& file) const {
    MemoryDevice device(file);
    Findings findings;
    CheckHeader(device, 0, file.size(), "header", Place::kDetached, findings);
  }

  // A keyslot that is added opens the volume.
  void Write(const Bytes& file) const {
    RecordingDevice device(file);
    if (!IsCheap(Located(device).header)) return;
    KeyslotEditor editor({.device = &device,
                          .area_bytes = file.size(),
                          .file_name = "header",
                          .place = Place::kDetached});
    KnownPassphrases right({"right"});
    const SecretBytes key =
        Unlock(editor.located(), "header", std::nullopt, right);
    const unsigned id = editor.Add(
        key, Secret("new"), {.id = {}, .kdf = CheapKdf(), .priority = {}});
    KnownPassphrases added({"new"});
    try {
      EXPECT_TRUE(crypto::ConstantTimeEquals(
          Unlock(Located(device), "header", id, added).bytes(), key.bytes()));
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
  }

  void Try(const Bytes& file) {
    ExpectBoundedSession("read", [&] { Opened(file); });
    ExpectBoundedSession("check", [&] { Check(file); });
    ExpectBoundedSession("write", [&] { Write(file); });
  }

  // Of a LUKS2 copy, as long as it says where it ends.
  static void Seal(std::span<std::byte> copy) {
    constexpr uint64_t kChecksum = 448;
    std::ranges::fill(copy.subspan(kChecksum, 64), std::byte{0});
    const auto hasher = crypto::MakeHasher("sha256");
    hasher->Update(copy);
    hasher->Final(copy.subspan(kChecksum, 32));
  }

  bool is_luks2() const { return GetParam() == 2; }
  uint64_t copy_bytes() const { return LoadNumber(good_, 8, 8); }

  // A copy of LUKS2 as it is damaged, which the other makes good, and with a
  // checksum that fits.
  void TryEverywhere(Bytes damaged) {
    if (!is_luks2()) return Try(damaged);
    ExpectBoundedSession("read by the second copy",
                         [&] { EXPECT_TRUE(Opened(damaged) == seen_); });
    Seal(std::span(damaged).first(copy_bytes()));
    // The second copy is as old: the first counts.
    Try(damaged);
  }

  // Where there is something: the binary header, and the text.
  uint64_t end() const {
    if (!is_luks2()) return kLuks1HeaderBytes;
    uint64_t end = 4096;
    while (good_[end] != std::byte{0}) ++end;
    return end + 8;
  }
  static bool IsPadding(uint64_t at, bool luks2) {
    return luks2 && at >= 512 && at < 4096;
  }

  Bytes good_;
  Bytes seen_;
  uint64_t used_ = 0;
};

TEST_P(HostileLuksFamilyTest, EveryByteFlipped) {
  for (uint64_t at = 0; at < end(); ++at) {
    if (IsPadding(at, is_luks2())) continue;
    SCOPED_TRACE(fmt::format("byte {}", at));
    Bytes damaged = good_;
    damaged[at] ^= at % 3 == 0 ? std::byte{0xff} : std::byte(1U << at % 8);
    TryEverywhere(std::move(damaged));
    if (HasFailure()) return;
  }
}

TEST_P(HostileLuksFamilyTest, EveryWordReplaced) {
  for (uint64_t at = 0; at + 8 <= end(); at += 8) {
    if (IsPadding(at, is_luks2())) continue;
    const uint64_t word = LoadNumber(good_, at, 8);
    std::set<uint64_t> values = {0,
                                 1,
                                 UINT64_MAX,
                                 word + 0x108,
                                 word >> 32 << 32,
                                 word | uint64_t{UINT32_MAX}};
    values.erase(word);
    for (const uint64_t value : values) {
      SCOPED_TRACE(fmt::format("{:#x} at byte {}", value, at));
      Bytes damaged = good_;
      StoreNumber(damaged, at, 8, value);
      TryEverywhere(std::move(damaged));
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, HostileLuksFamilyTest, testing::Values(1, 2),
                         [](const auto& test) {
                           return "Luks" + std::to_string(test.param);
                         });

}  // namespace
}  // namespace pellucid::luks
