// Every cipher, mode, IV generator and hash that qemu-img has, with each other
// and both ways: images that qemu-img made are read by us, and in volumes that
// we made QEMU writes what we read.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <ostream>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "tests/tools/encrypted_image_fixture.h"
#include "tools/key_files.h"

namespace pellucid {
namespace {

// In QEMU's words.
struct CipherAlg {
  const char* name;
  const char* on_disk;
  unsigned key_bits;
  // How many combinations of modes and IV generators it has at least, so that
  // "QEMU refuses it as well" cannot hide all of them.
  int least;
};
constexpr std::array kCipherAlgs = {
    CipherAlg{"aes-128", "aes", 128, 16},
    CipherAlg{"aes-192", "aes", 192, 4},
    CipherAlg{"aes-256", "aes", 256, 16},
    CipherAlg{"cast5-128", "cast5", 128, 9},
    CipherAlg{"serpent-128", "serpent", 128, 16},
    CipherAlg{"serpent-192", "serpent", 192, 4},
    CipherAlg{"serpent-256", "serpent", 256, 16},
    CipherAlg{"twofish-128", "twofish", 128, 16},
    CipherAlg{"twofish-192", "twofish", 192, 4},
    CipherAlg{"twofish-256", "twofish", 256, 16},
};
constexpr std::array kModes = {"cbc", "xts", "ctr", "ecb"};
constexpr std::array kHashes = {"sha256", "sha1",   "md5",      "sha224",
                                "sha384", "sha512", "ripemd160"};

std::string TestName(const std::string& words) {
  std::string name = words;
  std::ranges::replace_if(
      name, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

struct Combination {
  CipherAlg alg;
  std::string mode;
  std::string ivgen;
  std::string ivgen_hash;  // With essiv.
  std::string hash;

  // As `qemu-img create -o` takes it; `prefix` is "encrypt." with qcow2.
  std::string QemuOptions(const std::string& prefix) const {
    return fmt::format(
        "{0}cipher-alg={1},{0}cipher-mode={2},{0}ivgen-alg={3},{4}{0}hash-alg="
        "{5},{0}iter-time=10",
        prefix, alg.name, mode, ivgen,
        ivgen_hash.empty()
            ? ""
            : fmt::format("{}ivgen-hash-alg={},", prefix, ivgen_hash),
        hash);
  }
  // As in the LUKS1 header and in our --cipher.
  std::string Spec() const {
    return fmt::format("{}-{}-{}{}{}", alg.on_disk, mode, ivgen,
                       ivgen_hash.empty() ? "" : ":", ivgen_hash);
  }
  unsigned key_bits() const {
    return mode == "xts" ? 2 * alg.key_bits : alg.key_bits;
  }
  // QEMU aborts when the stripes of a key are not whole sectors.
  bool AbortsQemu() const { return key_bits() / 8 * 4000 % 512 != 0; }
};

void PrintTo(const CipherAlg& alg, std::ostream* out) { *out << alg.name; }
// All IV generators for one cipher in one mode; the hashes of the header take
// turns.
std::vector<Combination> Combinations(const CipherAlg& alg,
                                      const std::string& mode) {
  std::vector<Combination> all;
  size_t turn = 0;
  const auto add = [&](const char* ivgen, const char* ivgen_hash) {
    all.push_back(
        {alg, mode, ivgen, ivgen_hash, kHashes[turn++ % kHashes.size()]});
  };
  add("plain64", "");
  add("plain", "");
  for (const char* hash : kHashes) add("essiv", hash);
  return all;
}

class MadeByQemuTest : public EncryptedImageTest,
                       public testing::WithParamInterface<CipherAlg> {
 protected:
  static constexpr size_t kSize = 64 << 10;

  MadeByQemuTest() {
    KeyFile();
    WriteHostFile(folder_ / "source", source_);
  }

  // A volume with the source in it, if qemu-img can make it: as QEMU's own
  // format, or inside qcow2.
  bool QemuMakes(const Combination& combination, bool qcow2) {
    const std::string options =
        qcow2 ? "encrypt.format=luks,encrypt.key-secret=s," +
                    combination.QemuOptions("encrypt.")
              : "key-secret=s," + combination.QemuOptions("");
    return RunProgram(
               {"qemu-img", "convert", "-f", "raw", "-O",
                qcow2 ? "qcow2" : "luks", "--object",
                fmt::format("secret,id=s,file={}", (folder_ / "key").native()),
                "-o", options, "source", "volume"},
               "", folder_.path())
               .exit_code == 0;
  }

  void ExpectWeReadIt() {
    OpenOptions options;
    options.image = folder_ / "volume";
    cli::KeyFiles key({folder_ / "key"});
    const OpenedImage image = OpenImage(options, key);
    ASSERT_EQ(image.device->size(), kSize);
    Bytes content(kSize);
    image.device->Read(0, content);
    EXPECT_TRUE(content == source_);
  }

  const Bytes source_ = Noise(kSize, 7);
};

TEST_P(MadeByQemuTest, IsReadInEveryModeWithEveryIvAndHash) {
  int done = 0;
  for (const char* mode : kModes) {
    for (Combination combination : Combinations(GetParam(), mode)) {
      // It takes a second to abort; the other suite does it once.
      if (combination.AbortsQemu()) continue;
      bool made = false;
      for (const char* hash : kHashes) {
        combination.hash = hash;
        SCOPED_TRACE(combination.QemuOptions(""));
        const bool made_with_hash = QemuMakes(combination, /*qcow2=*/false);
        if (hash == kHashes.front()) made = made_with_hash;
        // Whether it can does not depend on the header's hash.
        ASSERT_EQ(made_with_hash, made);
        if (!made) break;
        ASSERT_NO_FATAL_FAILURE(ExpectWeReadIt());
      }
      if (!made) continue;
      SCOPED_TRACE(combination.QemuOptions("encrypt."));
      ASSERT_TRUE(QemuMakes(combination, /*qcow2=*/true));
      ASSERT_NO_FATAL_FAILURE(ExpectWeReadIt());
      ++done;
    }
  }
  EXPECT_GE(done, GetParam().least);
}

INSTANTIATE_TEST_SUITE_P(Ciphers, MadeByQemuTest,
                         testing::ValuesIn(kCipherAlgs), [](const auto& info) {
                           return TestName(info.param.name);
                         });

class WrittenByQemuTest : public EncryptedImageTest,
                          public testing::WithParamInterface<CipherAlg> {
 protected:
  static constexpr uint64_t kSize = 256 << 10;

  WrittenByQemuTest() {
    KeyFile();
    WriteHostFile(folder_ / "source", source_);
  }

  std::string Secret() const {
    return fmt::format("secret,id=s,file={}", (folder_ / "key").native());
  }

  bool QemuMakes(const Combination& combination) {
    return RunProgram(
               {"qemu-img", "create", "-q", "-f", "luks", "--object", Secret(),
                "-o", "key-secret=s," + combination.QemuOptions(""),
                "qemu.luks", "64K"},
               "", folder_.path())
               .exit_code == 0;
  }

  bool WeMake(const Combination& combination) {
    return RunPellucid({"create", "--force", "--quiet", "--format", "raw",
                        "--encryption", "luks1", "--cipher", combination.Spec(),
                        "--key-size", std::to_string(combination.key_bits()),
                        "--hash", combination.hash, "--pbkdf2-iterations",
                        "1000", "--key-file", "key", "volume",
                        std::to_string(kSize)})
               .exit_code == 0;
  }

  // QEMU fills the volume, and reads back what it wrote. False if it cannot
  // open it.
  bool QemuWrites() {
    const std::string image = "driver=luks,key-secret=s,file.filename=volume";
    const ProgramResult written = RunProgram(
        {"qemu-io", "--object", Secret(), "-c",
         fmt::format("write -q -s source 0 {}", kSize), "--image-opts", image},
        "", folder_.path());
    if (written.exit_code != 0) return false;
    RunTool({"qemu-img", "convert", "-O", "raw", "--object", Secret(),
             "--image-opts", image, "qemu.raw"},
            "", folder_.path());
    EXPECT_TRUE(ReadHostFile(folder_ / "qemu.raw") == source_);
    return true;
  }

  void ExpectWeReadIt() {
    const ProgramResult result = RunPellucid(
        {"export", "--force", "--key-file", "key", "volume", "copy.raw"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_TRUE(ReadHostFile(folder_ / "copy.raw") == source_);
  }

  const Bytes source_ = Noise(kSize, 7);
};

TEST_P(WrittenByQemuTest, IsReadInEveryModeWithEveryIv) {
  int done = 0;
  for (const char* mode : kModes) {
    for (const Combination& combination : Combinations(GetParam(), mode)) {
      SCOPED_TRACE(combination.Spec());
      if (combination.AbortsQemu()) {
        // It takes a second to do so: once is enough.
        if (combination.ivgen == "plain") {
          EXPECT_FALSE(QemuMakes(combination));
        }
      } else if (WeMake(combination) && QemuWrites()) {
        ASSERT_NO_FATAL_FAILURE(ExpectWeReadIt());
        ++done;
      } else {
        EXPECT_FALSE(QemuMakes(combination)) << "QEMU makes what we do not";
      }
    }
  }
  EXPECT_GE(done, GetParam().least);
}

INSTANTIATE_TEST_SUITE_P(Ciphers, WrittenByQemuTest,
                         testing::ValuesIn(kCipherAlgs), [](const auto& info) {
                           return TestName(info.param.name);
                         });

// QEMU knows its name but cannot do it, and neither can we.
TEST(QemuCiphers, TripleDesIsRefusedByName) {
  const ScratchFolder folder;
  WriteHostFile(folder / "key", "open sesame");
  const ProgramResult result =
      RunProgram({PELLUCID_PROGRAM, "create", "--key-file", folder / "key",
                  "--cipher", "des3_ede-cbc-plain64", folder / "volume", "1M"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("\"des3_ede\" is not supported"), std::string::npos)
      << result.err;
  EXPECT_FALSE(std::filesystem::exists(folder / "volume"));
}

}  // namespace
}  // namespace pellucid
