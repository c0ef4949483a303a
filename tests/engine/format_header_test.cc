#include "engine/luks/format_header.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/luks/located_header.h"
#include "engine/luks/unlock.h"
#include "engine/writable_file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"
#include "tests/engine/recording_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::luks {
namespace {

using crypto::SecretBytes;
using ::testing::HasSubstr;

SecretBytes Secret(std::string_view text) {
  return SecretBytes(std::as_bytes(std::span(text)));
}

FormatOptions Fast(unsigned version, Layout layout = Layout::kInPlace) {
  FormatOptions options;
  options.version = version;
  options.layout = layout;
  options.kdf.type = "pbkdf2";
  options.kdf.iterations = 1000;
  return options;
}

FormatOptions FastArgon2(const std::string& type) {
  FormatOptions options = Fast(2);
  options.kdf = KdfCost();
  options.kdf.type = type;
  options.kdf.time = 4;
  options.kdf.memory_kib = 32;
  options.kdf.cpus = 1;
  return options;
}

SecretBytes UnlockedKey(BlockDevice& device, Place place,
                        const std::string& passphrase) {
  const LocatedHeader located =
      ReadLuksHeader(device, 0, device.size(), "volume", place);
  KnownPassphrases passphrases({passphrase});
  return Unlock(located, "volume", std::nullopt, passphrases);
}

bool SameBytes(const SecretBytes& a, const SecretBytes& b) {
  return crypto::ConstantTimeEquals(a.bytes(), b.bytes());
}

struct Case {
  std::string name;
  FormatOptions options;
  std::vector<std::string> dump;  // What luksDump says of it.
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> Cases() {
  std::vector<Case> cases;
  cases.push_back({"Luks1", Fast(1), {"Version:       \t1", "4096"}});
  cases.push_back(
      {"Luks1Detached", Fast(1, Layout::kDetached), {"offset:\t0"}});
  cases.push_back({"Luks2", Fast(2), {"offset: 16777216", "16744448"}});
  cases.push_back({"Luks2Detached", Fast(2, Layout::kDetached), {"offset: 0"}});
  cases.push_back({"Argon2id", FastArgon2("argon2id"), {"argon2id"}});
  cases.push_back({"Argon2i", FastArgon2("argon2i"), {"argon2i"}});
  for (const unsigned version : {1U, 2U}) {
    Case cbc = {fmt::format("Cbc{}", version), Fast(version), {"essiv:sha256"}};
    cbc.options.mode = "cbc-essiv:sha256";
    cbc.options.key_bytes = 16;
    cbc.options.hash = "sha512";
    cbc.dump.push_back("sha512");
    cases.push_back(cbc);
  }
  // With LUKS1, cryptsetup needs the kernel for other ciphers than AES: QEMU
  // judges that below.
  Case serpent = {"Serpent", Fast(2), {"serpent", "whirlpool"}};
  serpent.options.cipher = "serpent";
  serpent.options.key_bytes = 32;
  serpent.options.hash = "whirlpool";
  serpent.options.kdf.hash = "sha1";
  cases.push_back(serpent);
  Case named = {"Named", Fast(2), {"Some label", "sector: 4096"}};
  named.options.sector_size = 4096;
  named.options.label = "Some label";
  named.options.uuid = "01234567-89ab-cdef-0123-456789abcdef";
  named.dump.push_back(named.options.uuid);
  cases.push_back(named);
  return cases;
}

class FormatHeaderTest : public ::testing::TestWithParam<Case> {};

TEST_P(FormatHeaderTest, OpensHereAndInCryptsetup) {
  const ScratchFolder folder;
  const FormatOptions& options = GetParam().options;
  const auto device = WritableFileDevice::Create(folder / "header");
  device->Resize(HeaderBytes(options) + 4096);
  const SecretBytes key = FormatHeader(*device, options, Secret("secret"));
  EXPECT_EQ(key.size(), options.key_bytes);
  const Place place =
      options.layout == Layout::kDetached ? Place::kDetached : Place::kInPlace;
  EXPECT_TRUE(SameBytes(key, UnlockedKey(*device, place, "secret")));
  EXPECT_THROW(UnlockedKey(*device, place, "Secret"), WrongPassphrase);

  WriteHostFile(folder / "right", "secret");
  WriteHostFile(folder / "wrong", "Secret");
  const std::string dump =
      RunTool({"cryptsetup", "luksDump", folder / "header"});
  for (const std::string& text : GetParam().dump) {
    EXPECT_THAT(dump, HasSubstr(text));
  }
  const auto opens = [&](const char* key_file) {
    return RunProgram({"cryptsetup", "open", "--test-passphrase", "--key-file",
                       folder / key_file, folder / "header"})
        .exit_code;
  };
  EXPECT_EQ(opens("right"), 0);
  EXPECT_EQ(opens("wrong"), 2);
}

INSTANTIATE_TEST_SUITE_P(All, FormatHeaderTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(FormatHeaderForQemuTest, QemuOpensARawLuks1Volume) {
  const ScratchFolder folder;
  std::vector<FormatOptions> all(4, Fast(1));
  all[1].key_bytes = 16;
  all[1].mode = "cbc-essiv:sha256";
  all[2].key_bytes = 32;
  all[2].hash = "sha1";
  all[3].cipher = "serpent";
  all[3].hash = "sha512";
  for (const FormatOptions& options : all) {
    std::filesystem::remove(folder / "volume");
    {
      const auto device = WritableFileDevice::Create(folder / "volume");
      device->Resize(HeaderBytes(options) + (1 << 20));
      FormatHeader(*device, options, Secret("secret"));
    }
    RunTool({"qemu-img", "convert", "--object", "secret,id=s,data=secret",
             "--image-opts",
             fmt::format("driver=luks,key-secret=s,file.filename={}",
                         (folder / "volume").native()),
             "-O", "raw", folder / "plain"});
    OpenOptions open;
    open.image = folder / "volume";
    EXPECT_EQ(ReadHostFile(folder / "plain"),
              ReadAll(*OpenDevice(open, "secret")));
  }
}

TEST(FormatHeaderForQemuTest, QemuOpensAHeaderEmbeddedInQcow2) {
  QemuImages images;
  QemuImage wanted;
  wanted.name = "disk.qcow2";
  wanted.encryption = "luks";
  wanted.virtual_size = 1 << 20;
  images.Create(wanted);
  const std::string disk = images.path("disk.qcow2");
  // The extension 0x0537be77 tells where the header is.
  const Bytes image = ReadHostFile(disk);
  uint64_t at = LoadNumber(image, 100, 4);
  while (LoadNumber(image, at, 4) != 0x0537be77) {
    at += 8 + (LoadNumber(image, at + 4, 4) + 7) / 8 * 8;
  }
  const uint64_t offset = LoadNumber(image, at + 8, 8);
  const FormatOptions options = Fast(1, Layout::kEmbedded);
  ASSERT_EQ(LoadNumber(image, at + 16, 8), HeaderBytes(options));
  RecordingDevice header{Bytes(HeaderBytes(options))};
  FormatHeader(header, options, Secret("new"));
  WritableFileDevice::Open(disk)->Write(offset, header.bytes());
  const auto opens = [&](const std::string& passphrase) {
    return RunProgram(
        {"qemu-io", "--object", "secret,id=s,data=" + passphrase,
         "--image-opts",
         "driver=qcow2,encrypt.key-secret=s,file.filename=" + disk, "-c",
         "write -P 7 0 64k", "-c", "read -P 7 0 64k"});
  };
  EXPECT_EQ(opens("new").exit_code, 0) << opens("new").err;
  EXPECT_NE(opens("old").exit_code, 0);
}

TEST(FormatHeaderContentTest, LeftoversBecomeZeros) {
  for (const unsigned version : {1U, 2U}) {
    const FormatOptions options = Fast(version);
    const uint64_t size = HeaderBytes(options);
    const Bytes before = Noise(size + 4096, version);
    RecordingDevice device(before);
    FormatHeader(device, options, Secret("secret"));
    // Behind the first keyslot there is nothing more.
    const uint64_t first_area = version == 1 ? 4096 : 32768;
    const auto rest = std::span(device.bytes())
                          .subspan(first_area + 258048)
                          .first(size - first_area - 258048);
    EXPECT_TRUE(std::ranges::all_of(
        rest, [](std::byte b) { return b == std::byte{0}; }));
    // And the payload is not touched.
    EXPECT_TRUE(std::ranges::equal(std::span(device.bytes()).subspan(size),
                                   std::span(before).subspan(size)));
    // The last thing is a flush, and one comes before the header.
    EXPECT_TRUE(device.events().back().written.empty());
  }
}

TEST(FormatHeaderContentTest, TwoHeadersHaveNothingInCommon) {
  const FormatOptions options = Fast(1);
  RecordingDevice a{Bytes(HeaderBytes(options))};
  RecordingDevice b{Bytes(HeaderBytes(options))};
  EXPECT_FALSE(SameBytes(FormatHeader(a, options, Secret("secret")),
                         FormatHeader(b, options, Secret("secret"))));
  const auto uuid = [](RecordingDevice& device) {
    return ReadLuksHeader(device, 0, device.size(), "v", Place::kDetached)
        .header.uuid;
  };
  EXPECT_NE(uuid(a), uuid(b));
  EXPECT_THAT(uuid(a), testing::MatchesRegex(
                           "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab]"
                           "[0-9a-f]{3}-[0-9a-f]{12}"));
}

TEST(FormatHeaderContentTest, CostsAreMeasured) {
  for (const unsigned version : {1U, 2U}) {
    FormatOptions options;
    options.version = version;
    options.kdf.type = version == 1 ? "pbkdf2" : "argon2id";
    options.kdf.iter_time_ms = 100;
    RecordingDevice device{Bytes(HeaderBytes(options))};
    FormatHeader(device, options, Secret("secret"));
    const auto header =
        ReadLuksHeader(device, 0, device.size(), "v", Place::kDetached).header;
    const Kdf& kdf = header.keyslots.front().kdf;
    if (version == 1) {
      EXPECT_GE(kdf.iterations, 1000U);
    } else {
      EXPECT_GE(kdf.time, 4U);
      EXPECT_GE(kdf.memory_kib, 32U << 10);
      EXPECT_LE(kdf.memory_kib, 1U << 20);
      EXPECT_LE(kdf.cpus, 4U);
    }
    EXPECT_GE(header.digests.front().kdf.iterations, 1000U);
    EXPECT_EQ(kdf.salt.size(), 32U);
  }
}

struct Refusal {
  std::string name;
  FormatOptions options;
  std::string text;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.name;
}

template <typename Change>
Refusal Refused(const std::string& name, unsigned version, Change change,
                const std::string& text) {
  FormatOptions options = Fast(version);
  change(options);
  return {name, options, text};
}

KdfCost Argon2(const std::string& type) {
  KdfCost cost;
  cost.type = type;
  return cost;
}

std::vector<Refusal> UsageRefusals() {
  using O = FormatOptions;
  std::vector<Refusal> refusals = {
      Refused(
          "Version", 2, [](O& o) { o.version = 3; }, "LUKS3"),
      Refused(
          "SectorSize", 2, [](O& o) { o.sector_size = 1000; }, "1000"),
      Refused(
          "LargeSector", 2, [](O& o) { o.sector_size = 8192; }, "8192"),
      Refused(
          "Luks1Sector", 1, [](O& o) { o.sector_size = 4096; }, "LUKS2"),
      Refused(
          "Embedded", 2, [](O& o) { o.layout = Layout::kEmbedded; },
          "only LUKS1"),
      Refused(
          "Luks1Argon2", 1, [](O& o) { o.kdf = KdfCost(); }, "argon2id"),
      Refused(
          "Luks1Label", 1, [](O& o) { o.label = "x"; }, "label"),
      Refused(
          "LongLabel", 2, [](O& o) { o.label = std::string(48, 'x'); },
          "48 bytes"),
      Refused(
          "OddLabel", 2, [](O& o) { o.label = "a\nb"; }, "printable"),
      Refused(
          "Uuid", 2, [](O& o) { o.uuid = "0123"; }, "not a UUID"),
      Refused(
          "UuidDash", 2,
          [](O& o) { o.uuid = "0123456789ab-cdef-0123-456789abcdef-"; },
          "not a UUID"),
      Refused(
          "NoKey", 2, [](O& o) { o.key_bytes = 0; }, "not within 1"),
      Refused(
          "LongKey", 2, [](O& o) { o.key_bytes = 513; }, "not within 1"),
  };
  const std::vector<Refusal> costs = {
      Refused(
          "Iterations", 2, [](O& o) { o.kdf.iterations = 999; }, "1000"),
      Refused(
          "Mixed", 2, [](O& o) { o.kdf.time = 4; }, "argon2"),
      Refused(
          "Argon2Iterations", 2, [](O& o) { o.kdf.type = "argon2id"; },
          "not iterations"),
      Refused(
          "Passes", 2,
          [](O& o) {
            o.kdf = Argon2("argon2id");
            o.kdf.time = 3;
          },
          "takes 4 to"),
      Refused(
          "Memory", 2,
          [](O& o) {
            o.kdf = Argon2("argon2i");
            o.kdf.memory_kib = 31;
          },
          "takes 32 to"),
      Refused(
          "Lanes", 2,
          [](O& o) {
            o.kdf = Argon2("argon2id");
            o.kdf.cpus = 5;
          },
          "lanes"),
      Refused(
          "TooLong", 2,
          [](O& o) {
            o.kdf = Argon2("argon2id");
            o.kdf.time = UINT32_MAX;
          },
          "hours"),
      Refused(
          "Kdf", 2, [](O& o) { o.kdf.type = "scrypt"; }, "scrypt"),
      Refused(
          "NoTime", 2, [](O& o) { o.kdf.iter_time_ms = 0; }, "0"),
  };
  refusals.insert(refusals.end(), costs.begin(), costs.end());
  return refusals;
}

class RefusedFormatTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedFormatTest, IsNamedAndNothingIsWritten) {
  RecordingDevice device{Bytes(16 << 20)};
  EXPECT_THAT(ThrownText<UsageError>([&] {
                FormatHeader(device, GetParam().options, Secret("secret"));
              }),
              HasSubstr(GetParam().text));
  EXPECT_TRUE(device.events().empty());
}

INSTANTIATE_TEST_SUITE_P(All, RefusedFormatTest,
                         ::testing::ValuesIn(UsageRefusals()),
                         [](const auto& info) { return info.param.name; });

TEST(FormatHeaderRefusalTest, UnknownAlgorithmsAreUnsupported) {
  FormatOptions cipher = Fast(2);
  cipher.cipher = "rot13";
  FormatOptions mode = Fast(1);
  mode.mode = "xts-random";
  FormatOptions key = Fast(2);
  key.key_bytes = 17;
  FormatOptions hash = Fast(2);
  hash.hash = "crc32";
  FormatOptions kdf_hash = Fast(2);
  kdf_hash.kdf.hash = "crc32";
  for (const FormatOptions* options :
       {&cipher, &mode, &key, &hash, &kdf_hash}) {
    EXPECT_THROW(CheckFormatOptions(*options), Unsupported);
  }
}

TEST(FormatHeaderRefusalTest, SmallDeviceIsRefused) {
  RecordingDevice device{Bytes((16 << 20) - 1)};
  EXPECT_THAT(ThrownText<UsageError>(
                  [&] { FormatHeader(device, Fast(2), Secret("secret")); }),
              HasSubstr("too small"));
}

}  // namespace
}  // namespace pellucid::luks
