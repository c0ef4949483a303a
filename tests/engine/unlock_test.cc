// Which keyslots a passphrase is tried on, and in what order.

#include "engine/luks/unlock.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "engine/luks/format_header.h"
#include "engine/luks/key_material.h"
#include "engine/luks/keyslot_editor.h"
#include "engine/luks/luks2_document.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/recording_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// Fixed at compile time, so that no key is derived more often than is told.
constexpr uint32_t kIterations = 1000;

SecretBytes Secret(std::string_view text) {
  return SecretBytes(std::as_bytes(std::span(text)));
}

KdfCost CheapPbkdf2(const std::string& hash = "sha256") {
  KdfCost cost;
  cost.type = "pbkdf2";
  cost.hash = hash;
  cost.iterations = kIterations;
  return cost;
}

// Passes reads on and keeps their offsets. Safe to call from many threads, as
// keyslots are tried from some.
class ReadLog : public BlockDevice {
 public:
  explicit ReadLog(BlockDevice& device) : device_(device) {}

  uint64_t size() const override { return device_.size(); }
  void Read(uint64_t offset, std::span<std::byte> out) override {
    const std::lock_guard lock(mutex_);
    offsets_.push_back(offset);
    if (unreadable_.contains(offset)) {
      throw IoError(EIO, fmt::format("volume: cannot read at {}", offset));
    }
    device_.Read(offset, out);
  }
  Extent ExtentAt(uint64_t offset, uint64_t max_length) override {
    return device_.ExtentAt(offset, max_length);
  }

  std::vector<uint64_t> Take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(offsets_, {});
  }

  void FailAt(uint64_t offset) { unreadable_.insert(offset); }

 private:
  BlockDevice& device_;
  std::set<uint64_t> unreadable_;
  std::mutex mutex_;
  std::vector<uint64_t> offsets_;
};

// A LUKS2 volume with keyslots 0 to 3, opened by "0" to "3".
class UnlockTest : public ::testing::Test {
 protected:
  static constexpr unsigned kSlots = 4;

  UnlockTest() : volume_(NewVolume()), log_(volume_) { AddKeyslots(); }

  std::vector<std::byte> NewVolume() {
    FormatOptions options;
    options.version = 2;
    options.kdf = CheapPbkdf2();
    RecordingDevice device(std::vector<std::byte>(HeaderBytes(options) + 4096));
    key_ = FormatHeader(device, options, Secret("0"));
    return device.bytes();
  }

  WritableHeader Header() {
    return {.device = &volume_,
            .offset = 0,
            .area_bytes = volume_.size(),
            .file_name = "volume",
            .place = Place::kInPlace};
  }

  void AddKeyslots() {
    KeyslotEditor editor(Header());
    for (unsigned id = 1; id < kSlots; ++id) {
      editor.Add(key_, Secret(std::to_string(id)),
                 {.id = id, .kdf = CheapPbkdf2(), .priority = {}});
    }
  }

  void Prioritise(unsigned id, Priority priority) {
    Edit([&](Luks2Json& json) {
      json["keyslots"][std::to_string(id)]["priority"] =
          static_cast<unsigned>(priority);
    });
  }

  template <typename Change>
  void Edit(Change change) {
    Luks2Document document(Header());
    Luks2Json json = document.json();
    change(json);
    document.Commit(json);
  }

  LocatedHeader Located() {
    LocatedHeader located =
        ReadLuksHeader(log_, 0, log_.size(), "volume", Place::kInPlace);
    log_.Take();
    return located;
  }

  // The keyslots whose key material has been read since the last call.
  std::vector<unsigned> Tried(const LocatedHeader& located) {
    std::vector<unsigned> ids;
    for (const uint64_t offset : log_.Take()) {
      ids.push_back(std::ranges::find(located.header.keyslots, offset,
                                      &Keyslot::area_offset)
                        ->id);
    }
    return ids;
  }

  std::optional<unsigned> Open(const LocatedHeader& located,
                               std::vector<std::string> passphrases,
                               std::optional<unsigned> keyslot = {}) {
    KnownPassphrases known(std::move(passphrases));
    UnlockedVolume volume = UnlockVolume(located, "volume", keyslot, known);
    EXPECT_TRUE(crypto::ConstantTimeEquals(volume.key.bytes(), key_.bytes()));
    EXPECT_EQ(known.accepted(), 1);
    return volume.keyslot;
  }

  SecretBytes key_;
  RecordingDevice volume_;
  ReadLog log_;
};

TEST_F(UnlockTest, EachPassphraseOpensItsKeyslot) {
  const LocatedHeader located = Located();
  for (unsigned id = 0; id < kSlots; ++id) {
    EXPECT_EQ(Open(located, {std::to_string(id)}), id);
  }
}

TEST_F(UnlockTest, AWrongPassphraseIsTriedOnceOnEachKeyslot) {
  const LocatedHeader located = Located();
  KnownPassphrases wrong({"wrong"});
  EXPECT_THAT(ThrownText<WrongPassphrase>([&] {
                UnlockVolume(located, "disk.img", std::nullopt, wrong);
              }),
              HasSubstr("disk.img: wrong passphrase: it opens none of the 4"));
  EXPECT_THAT(Tried(located), UnorderedElementsAre(0, 1, 2, 3));
  EXPECT_EQ(wrong.accepted(), 0);
}

TEST_F(UnlockTest, AKeyslotThatCannotBeReadKeepsNoOtherFromOpening) {
  const LocatedHeader located = Located();
  for (unsigned id = 0; id + 1 < kSlots; ++id) {
    log_.FailAt(located.header.keyslots[id].area_offset);
  }
  EXPECT_EQ(Open(located, {"3"}), 3U);
  EXPECT_EQ(Open(located, {"wrong", "3"}), 3U);
  // It may have been the one.
  KnownPassphrases wrong({"0", "wrong"});
  EXPECT_THAT(
      ThrownText<IoError>([&] { UnlockVolume(located, "volume", {}, wrong); }),
      HasSubstr("cannot read at"));
  EXPECT_EQ(wrong.given(), 2);
  // With none that can be read, nobody is asked twice.
  log_.FailAt(located.header.keyslots[kSlots - 1].area_offset);
  KnownPassphrases useless({"3", "2", "1"});
  EXPECT_THROW(UnlockVolume(located, "volume", {}, useless), IoError);
  EXPECT_EQ(useless.given(), 1);
}

TEST_F(UnlockTest, EveryPassphraseThatIsOfferedIsTried) {
  const LocatedHeader located = Located();
  EXPECT_EQ(Open(located, {"wrong", "also wrong", "2", "not needed"}), 2U);
}

// One keyslot at a time, so that the order can be seen.
class UnlockInTurnTest : public UnlockTest {
 protected:
  UnlockInTurnTest() {
    // Each is dearer than the one before, and none waits for a dearer one.
    Edit([](Luks2Json& json) {
      for (unsigned id = 0; id < kSlots; ++id) {
        json["keyslots"][std::to_string(id)]["kdf"]["iterations"] =
            kIterations + id;
      }
    });
  }

  // All keyslots that a passphrase which opens none is tried on.
  std::vector<unsigned> TriedByWrong(std::optional<unsigned> keyslot = {}) {
    const LocatedHeader located = Located();
    KnownPassphrases wrong({"wrong"});
    EXPECT_THROW(UnlockVolume(located, "volume", keyslot, wrong),
                 WrongPassphrase);
    return Tried(located);
  }
};

TEST_F(UnlockInTurnTest, KeyslotsAreTriedByTheirNumbers) {
  EXPECT_THAT(TriedByWrong(), ElementsAre(0, 1, 2, 3));
}

TEST_F(UnlockInTurnTest, NothingIsTriedBehindTheOneThatOpens) {
  const LocatedHeader located = Located();
  EXPECT_EQ(Open(located, {"0"}), 0U);
  EXPECT_THAT(Tried(located), ElementsAre(0));
}

TEST_F(UnlockInTurnTest, PreferredComeFirstAndIgnoredNever) {
  Prioritise(3, Priority::kPrefer);
  Prioritise(1, Priority::kIgnore);
  EXPECT_THAT(TriedByWrong(), ElementsAre(3, 0, 2));
  const LocatedHeader located = Located();
  KnownPassphrases of_the_ignored({"1"});
  EXPECT_THROW(UnlockVolume(located, "volume", std::nullopt, of_the_ignored),
               WrongPassphrase);
}

TEST_F(UnlockInTurnTest, ANamedKeyslotIsTheOnlyOneEvenIfIgnored) {
  Prioritise(1, Priority::kIgnore);
  Prioritise(3, Priority::kPrefer);
  EXPECT_THAT(TriedByWrong(1), ElementsAre(1));
  EXPECT_THAT(TriedByWrong(2), ElementsAre(2));
}

TEST_F(UnlockTest, ANamedKeyslotIsOpenedByItsPassphraseOnly) {
  const LocatedHeader located = Located();
  EXPECT_EQ(Open(located, {"2"}, 2), 2U);
  KnownPassphrases other({"0"});
  EXPECT_THAT(ThrownText<WrongPassphrase>(
                  [&] { UnlockVolume(located, "volume", 2, other); }),
              HasSubstr("does not open keyslot 2"));
}

TEST_F(UnlockTest, AKeyslotThatIsNotInUseIsToldBeforeAnybodyIsAsked) {
  const LocatedHeader located = Located();
  KnownPassphrases known({"0"});
  EXPECT_THAT(ThrownText<WrongPassphrase>(
                  [&] { UnlockVolume(located, "volume", 7, known); }),
              HasSubstr("keyslot 7 is not in use"));
  EXPECT_EQ(known.given(), 0);
}

TEST_F(UnlockTest, KeyslotsOfOtherKeysAreNotTried) {
  // As `cryptsetup luksAddKey --unbound` leaves it.
  Edit([](Luks2Json& json) {
    Luks2Json unbound = json["digests"]["0"];
    unbound["keyslots"] = {"3"};
    unbound["segments"] = Luks2Json::array();
    json["digests"]["1"] = unbound;
    json["digests"]["0"]["keyslots"] = {"0", "1", "2"};
  });
  const LocatedHeader located = Located();
  KnownPassphrases unbound({"3"});
  EXPECT_THROW(UnlockVolume(located, "volume", std::nullopt, unbound),
               WrongPassphrase);
  EXPECT_THAT(Tried(located), UnorderedElementsAre(0, 1, 2));
  KnownPassphrases again({"3"});
  EXPECT_THROW(UnlockVolume(located, "volume", 3, again), WrongPassphrase);
  EXPECT_THAT(Tried(located), IsEmpty());
}

// A derivation cannot be stopped: what opens a cheap keyslot must not wait for
// one that takes hours, on however many cores.
TEST_F(UnlockTest, ACheapKeyslotDoesNotWaitForADearOne) {
  {
    KeyslotEditor editor(Header());
    for (const unsigned id : {0U, 1U}) {
      // One block of the key, so that there is a core for each keyslot.
      editor.Change(id, key_, Secret(std::to_string(id)),
                    {.id = {}, .kdf = CheapPbkdf2("sha512"), .priority = {}});
    }
  }
  Edit([](Luks2Json& json) {
    json["keyslots"]["1"]["kdf"]["iterations"] = UINT32_MAX;
  });
  const LocatedHeader located = Located();
  EXPECT_EQ(Open(located, {"0"}), 0U);
  EXPECT_THAT(Tried(located), ElementsAre(0));
}

TEST_F(UnlockTest, KeyslotsThatCostTheSameAreTriedTogether) {
  KeyslotEditor editor(Header());
  for (unsigned id = 0; id < kSlots; ++id) {
    editor.Change(id, key_, Secret(std::to_string(id)),
                  {.id = {}, .kdf = CheapPbkdf2("sha512"), .priority = {}});
  }
  const LocatedHeader located = Located();
  EXPECT_EQ(Open(located, {"0"}), 0U);
  // As many as there are cores, in whatever order they come to read.
  EXPECT_EQ(Tried(located).size(),
            std::clamp(std::thread::hardware_concurrency(), 1U, kSlots));
}

// Keyslots 0 and 1 take 64 KiB and 3 GiB, 2 and 3 none.
class UnlockWithinMemoryTest : public UnlockTest {
 protected:
  static constexpr uint64_t kDear = uint64_t{3} << 30;

  UnlockWithinMemoryTest() {
    {
      KeyslotEditor editor(Header());
      KdfCost cost;
      cost.type = "argon2id";
      cost.time = 4;
      cost.memory_kib = 64;
      cost.cpus = 1;
      for (const unsigned id : {0U, 1U}) {
        editor.Change(id, key_, Secret(std::to_string(id)),
                      {.id = {}, .kdf = cost, .priority = {}});
      }
    }
    Edit([](Luks2Json& json) {
      json["keyslots"]["1"]["kdf"]["memory"] = kDear / 1024;
    });
  }
};

TEST_F(UnlockWithinMemoryTest, AKeyslotAboveTheLimitIsNotTried) {
  const LocatedHeader located = Located();
  KnownPassphrases wrong({"wrong"});
  EXPECT_THAT(ThrownText<IoError>([&] {
                UnlockVolume(located, "volume", std::nullopt, wrong, kDear - 1);
              }),
              HasSubstr("volume: keyslot 1 was not tried: its key derivation "
                        "(argon2id) takes 3072M of memory, above the 3145727K "
                        "that is allowed; if you trust this header, say "
                        "--max-kdf-memory 3072M"));
  EXPECT_THAT(Tried(located), UnorderedElementsAre(0, 2, 3));
}

TEST_F(UnlockWithinMemoryTest, TheOtherKeyslotsOpen) {
  const LocatedHeader located = Located();
  for (const std::string passphrase : {"0", "2", "3"}) {
    KnownPassphrases known({passphrase});
    EXPECT_EQ(
        UnlockVolume(located, "volume", std::nullopt, known, 64 << 10).keyslot,
        std::stoul(passphrase));
  }
}

TEST_F(UnlockWithinMemoryTest, NobodyIsAskedIfNoKeyslotIsWithinTheLimit) {
  const LocatedHeader located = Located();
  KnownPassphrases known({"1"});
  EXPECT_THAT(ThrownText<IoError>(
                  [&] { UnlockVolume(located, "volume", 1, known, 1 << 30); }),
              HasSubstr("above the 1024M that is allowed"));
  EXPECT_EQ(known.given(), 0);
  EXPECT_THAT(ThrownText<IoError>([&] {
                UnlockVolume(located, "volume", 0, known, (64 << 10) - 1);
              }),
              HasSubstr("--max-kdf-memory 64K"));
  EXPECT_EQ(known.given(), 0);
}

TEST(MaxKdfMemoryTest, IsWhatTheMachineHasUpTo4GiB) {
  const auto pages = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES));
  const auto memory = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  constexpr uint64_t kMost = uint64_t{4} << 30;
  EXPECT_LE(DefaultMaxKdfMemory(), kMost);
  EXPECT_GE(DefaultMaxKdfMemory(), std::min(kMost, memory));
}

TEST_F(UnlockTest, TheVolumeKeyIsCheckedAgainstTheDigest) {
  class VolumeKey : public PassphraseSource {
   public:
    explicit VolumeKey(SecretBytes key) : key_(std::move(key)) {}
    std::optional<SecretBytes> Get(std::string_view, unsigned) override {
      return std::nullopt;
    }
    std::optional<SecretBytes> GetVolumeKey(std::string_view) override {
      return key_.Clone();
    }
    void Accepted() override {}

   private:
    SecretBytes key_;
  };
  const LocatedHeader located = Located();
  VolumeKey right(key_.Clone());
  EXPECT_EQ(UnlockVolume(located, "volume", std::nullopt, right).keyslot,
            std::nullopt);
  EXPECT_THAT(Tried(located), IsEmpty());
  SecretBytes other = key_.Clone();
  other.bytes()[63] ^= std::byte{1};
  VolumeKey wrong(std::move(other));
  EXPECT_THAT(ThrownText<WrongPassphrase>([&] {
                UnlockVolume(located, "volume", std::nullopt, wrong);
              }),
              HasSubstr("wrong volume key"));
}

}  // namespace
}  // namespace pellucid::luks
