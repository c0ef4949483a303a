// What is left of passphrases and keys in the memory of the process when
// everybody who had them is gone: nothing, on no stack and no heap.

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "crypto/random_bytes.h"
#include "engine/luks/format_header.h"
#include "engine/luks/key_material.h"
#include "engine/luks/keyslot_editor.h"
#include "engine/luks/unlock.h"
#include "tests/engine/recording_device.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;
using Bytes = std::vector<std::byte>;

constexpr std::byte kMask{0xa5};

// A secret that a test remembers without having it in memory.
class Masked {
 public:
  explicit Masked(std::span<const std::byte> secret) {
    for (const std::byte b : secret) bytes_.push_back(b ^ kMask);
  }

  SecretBytes Reveal() const {
    SecretBytes secret(bytes_.size());
    for (size_t i = 0; i < bytes_.size(); ++i) {
      secret.bytes()[i] = bytes_[i] ^ kMask;
    }
    return secret;
  }

  // Does `memory` hold 16 bytes of it in a row, from a multiple of 16 on?
  bool IsIn(std::span<const std::byte> memory) const {
    constexpr size_t kPiece = 16;
    for (size_t piece = 0; piece + kPiece <= bytes_.size(); piece += kPiece) {
      const auto begin = bytes_.begin() + static_cast<ptrdiff_t>(piece);
      const auto found =
          std::search(memory.begin(), memory.end(), begin, begin + kPiece,
                      [](std::byte there, std::byte masked) {
                        return there == (masked ^ kMask);
                      });
      if (found != memory.end()) return true;
    }
    return false;
  }

 private:
  Bytes bytes_;
};

// The mappings that hold `secret`, as /proc/self/maps names them.
std::vector<std::string> WhereIs(const Masked& secret) {
  constexpr uint64_t kAtOnce = 1 << 20;
  constexpr uint64_t kOverlap = 64;
  // Larger ones are the books of a sanitizer.
  constexpr uint64_t kMostBytes = uint64_t{1} << 30;
  std::vector<std::string> found;
  const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  EXPECT_GE(memory, 0);
  std::ifstream maps("/proc/self/maps");
  std::vector<std::string> lines;
  for (std::string line; std::getline(maps, line);) lines.push_back(line);
  Bytes piece(kAtOnce + kOverlap);
  for (const std::string& line : lines) {
    unsigned long begin = 0;
    unsigned long end = 0;
    char rights[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, rights) != 3 ||
        std::string_view(rights).substr(0, 2) != "rw" ||
        end - begin > kMostBytes) {
      continue;
    }
    for (unsigned long at = begin; at < end; at += kAtOnce) {
      const ssize_t got = pread(memory, piece.data(),
                                std::min<uint64_t>(piece.size(), end - at),
                                static_cast<off_t>(at));
      if (got <= 0) break;
      const bool here =
          secret.IsIn(std::span(piece).first(static_cast<size_t>(got)));
      std::ranges::fill(piece, std::byte{0});
      if (!here) continue;
      found.push_back(line);
      break;
    }
  }
  close(memory);
  return found;
}

// A passphrase source that has it masked.
class MaskedPassphrase : public PassphraseSource {
 public:
  explicit MaskedPassphrase(const Masked& passphrase)
      : passphrase_(passphrase) {}
  std::optional<SecretBytes> Get(std::string_view, unsigned attempt) override {
    if (attempt > 0) return std::nullopt;
    return passphrase_.Reveal();
  }
  void Accepted() override {}

 private:
  const Masked& passphrase_;
};

struct Volume {
  const char* name;
  unsigned version;
  const char* kdf;
  const char* hash;
  const char* cipher;
  const char* mode;
  uint32_t key_bytes;
};

void PrintTo(const Volume& volume, std::ostream* out) { *out << volume.name; }

class SecretResidueTest : public ::testing::TestWithParam<Volume> {
 protected:
  static Masked RandomPassphrase() {
    SecretBytes passphrase(48);
    crypto::FillRandom(passphrase.bytes());
    return Masked(passphrase.bytes());
  }

  static FormatOptions Options() {
    const Volume& volume = GetParam();
    FormatOptions options;
    options.version = volume.version;
    options.cipher = volume.cipher;
    options.mode = volume.mode;
    options.hash = volume.hash;
    options.key_bytes = volume.key_bytes;
    options.kdf.type = volume.kdf;
    options.kdf.hash = volume.hash;
    if (options.kdf.type == "pbkdf2") {
      // Enough for threads to be worth while.
      options.kdf.iterations = 20000;
    } else {
      options.kdf.time = 4;
      options.kdf.memory_kib = 1024;
      options.kdf.cpus = 2;
    }
    return options;
  }

  static void ExpectNowhere(const Masked& secret, const char* what) {
    EXPECT_EQ(WhereIs(secret), std::vector<std::string>()) << what;
  }
};

TEST_P(SecretResidueTest, NothingIsLeft) {
  const Masked passphrase = RandomPassphrase();
  const Masked added = RandomPassphrase();
  const FormatOptions options = Options();
  RecordingDevice device{Bytes(HeaderBytes(options) + 65536)};
  // Makes it, adds a passphrase, opens it with both, reads and writes.
  const auto use = [&] {
    const Masked key(
        FormatHeader(device, options, passphrase.Reveal()).bytes());
    KeyslotEditor editor({.device = &device,
                          .offset = 0,
                          .area_bytes = device.size(),
                          .file_name = "volume",
                          .place = Place::kInPlace});
    editor.Add(key.Reveal(), added.Reveal(),
               {.id = {}, .kdf = options.kdf, .priority = {}});
    for (const Masked* known : {&passphrase, &added}) {
      MaskedPassphrase source(*known);
      const SecretBytes unlocked =
          Unlock(editor.located(), "volume", std::nullopt, source);
    }
    return key;
  };
  const Masked key = use();
  ExpectNowhere(passphrase, "the passphrase");
  ExpectNowhere(added, "the added passphrase");
  ExpectNowhere(key, "the volume key");
  const LocatedHeader located =
      ReadLuksHeader(device, 0, device.size(), "volume", Place::kInPlace);
  for (const Keyslot& slot : located.header.keyslots) {
    const Masked& known = slot.id == 0 ? passphrase : added;
    SecretBytes derived(slot.area_key_size);
    Derive(slot.kdf, known.Reveal().bytes(), derived.bytes());
    const Masked slot_key(derived.bytes());
    derived = SecretBytes();
    ExpectNowhere(slot_key, "the key of a keyslot");
  }
}

// A test that finds nothing must be able to find something.
TEST(SecretResidueSearchTest, FindsWhatIsThere) {
  SecretBytes secret(48);
  crypto::FillRandom(secret.bytes());
  const Masked masked(secret.bytes());
  EXPECT_FALSE(WhereIs(masked).empty());
  const auto kept = std::make_unique<Bytes>(secret.bytes().begin() + 16,
                                            secret.bytes().begin() + 32);
  secret = SecretBytes();
  EXPECT_FALSE(WhereIs(masked).empty());
}

INSTANTIATE_TEST_SUITE_P(
    Volumes, SecretResidueTest,
    ::testing::Values(Volume{"Luks1", 1, "pbkdf2", "sha256", "aes",
                             "xts-plain64", 64},
                      Volume{"Luks1Sha512", 1, "pbkdf2", "sha512", "aes",
                             "cbc-essiv:sha256", 32},
                      Volume{"Luks1Sm3Serpent", 1, "pbkdf2", "sm3", "serpent",
                             "xts-plain64", 64},
                      Volume{"Luks1WhirlpoolTwofish", 1, "pbkdf2", "whirlpool",
                             "twofish", "cbc-plain64", 32},
                      Volume{"Luks2Argon2id", 2, "argon2id", "sha256", "aes",
                             "xts-plain64", 64},
                      Volume{"Luks2Pbkdf2Blake2", 2, "pbkdf2", "blake2b-512",
                             "camellia", "xts-plain64", 64}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace pellucid::luks
