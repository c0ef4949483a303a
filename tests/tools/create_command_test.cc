// `pellucid create`, judged by qemu-img, qemu-io and cryptsetup.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/tools/create_fixture.h"

namespace pellucid {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

using CreateCommandTest = CreateTest;

TEST_F(CreateCommandTest, TheDefaultIsQcow2WithLuks1) {
  const std::string out =
      MustCreate(Words{"--iter-time", "10", "new", "20000001"} + kKey);
  EXPECT_EQ(out,
            "new: qcow2 image of 19.1 MiB (20000256 bytes), encrypted with "
            "LUKS1 (aes-xts-plain64, 512-bit key)\n");
  const json info =
      json::parse(Run({"qemu-img", "info", "--output=json", "new"}));
  EXPECT_EQ(info.at("virtual-size"), 20000256);
  EXPECT_EQ(info.at("encrypted"), true);
  struct stat status = {};
  ASSERT_EQ(stat((folder_ / "new").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  EXPECT_LE(status.st_blocks * 512, 1 << 20);
  EXPECT_TRUE(Export({"--key-file", "key", "new"}) == Bytes(20000256));
  ExpectWeAndQemuReadEachOther("qcow2", "new", 20000256);
  Run({"qemu-img", "check", "--object", "secret,id=s,file=key", "--image-opts",
       "driver=qcow2,encrypt.key-secret=s,file.filename=new"});
}

struct Container {
  const char* name;
  Words options;  // Without the cost of keys.
  unsigned luks;  // Version, or 0.
  bool detached;
  const char* format;
};

void PrintTo(const Container& container, std::ostream* out) {
  *out << container.name;
}

class ContainersTest : public CreateCommandTest,
                       public testing::WithParamInterface<Container> {};

TEST_P(ContainersTest, OpenWithTheirSize) {
  const Container& container = GetParam();
  constexpr uint64_t kSize = 3 << 20;
  MustCreate(container.options + Words{"new", "3M"} +
             (container.luks == 0   ? Words{}
              : container.luks == 1 ? kFastPbkdf2
                                    : kFastArgon2));
  Words open = {"new"};
  if (container.detached) open = Words{"--header", "hdr"} + open;
  const json info = Info(open);
  EXPECT_EQ(info.at("virtual_size"), kSize);
  EXPECT_EQ(info.at("format"), container.format);
  const Bytes plaintext = Export((container.luks == 0 ? Words{} : kKey) + open);
  EXPECT_EQ(plaintext.size(), kSize);
  const bool reads_zeros =
      container.luks == 0 || container.name == std::string("embedded");
  EXPECT_EQ(plaintext == Bytes(kSize), reads_zeros);
  if (container.luks != 0 && container.name != std::string("embedded")) {
    ExpectCryptsetupOpens(container.detached ? "hdr" : "new",
                          std::to_string(container.luks));
  }
  if (container.format == std::string("qcow2") && container.luks != 1) {
    Run({"qemu-img", "check", "new"});
  }
}

INSTANTIATE_TEST_SUITE_P(
    Containers, ContainersTest,
    testing::Values(
        Container{"embedded", {}, 1, false, "qcow2"},
        Container{"raw_luks1",
                  {"--format", "raw", "--encryption", "luks1"},
                  1,
                  false,
                  "raw"},
        Container{"raw_luks2", {"--format", "raw"}, 2, false, "raw"},
        Container{"detached_luks1_raw",
                  {"--format", "raw", "--encryption", "luks1",
                   "--detached-header", "hdr"},
                  1,
                  true,
                  "raw"},
        Container{"detached_luks2_raw",
                  {"--format", "raw", "--detached-header", "hdr"},
                  2,
                  true,
                  "raw"},
        Container{"detached_luks1_qcow2",
                  {"--encryption", "luks1", "--detached-header", "hdr"},
                  1,
                  true,
                  "qcow2"},
        Container{"detached_luks2_qcow2",
                  {"--detached-header", "hdr"},
                  2,
                  true,
                  "qcow2"},
        Container{"plain_qcow2", {"--encryption", "none"}, 0, false, "qcow2"},
        Container{"plain_raw",
                  {"--encryption", "none", "--format", "raw"},
                  0,
                  false,
                  "raw"}),
    [](const auto& info) { return info.param.name; });

TEST_F(CreateCommandTest, QemuSharesARawLuks1Volume) {
  MustCreate(Words{"--format", "raw", "--encryption", "luks1", "new", "1M"} +
             kFastPbkdf2);
  ExpectWeAndQemuReadEachOther("luks", "new", 1 << 20);
}

TEST_F(CreateCommandTest, Qcow2OptionsArriveInTheImage) {
  MustCreate(Words{"--cluster-size", "128K", "--refcount-bits", "1",
                   "--extended-l2", "--lazy-refcounts", "--compression-type",
                   "zstd", "--encryption", "none", "new", "1G"});
  const json info =
      json::parse(Run({"qemu-img", "info", "--output=json", "new"}));
  EXPECT_EQ(info.at("cluster-size"), 131072);
  const json& data = info.at("format-specific").at("data");
  EXPECT_EQ(data.at("refcount-bits"), 1);
  EXPECT_EQ(data.at("extended-l2"), true);
  EXPECT_EQ(data.at("lazy-refcounts"), true);
  EXPECT_EQ(data.at("compression-type"), "zstd");
  MustCreate({"--compat", "0.10", "--encryption", "none", "old", "1G"});
  EXPECT_THAT(Run({"qemu-img", "info", "old"}), HasSubstr("compat: 0.10"));
}

TEST_F(CreateCommandTest, Luks2OptionsArriveInTheHeader) {
  MustCreate(Words{"--format", "raw", "--sector-size", "4096", "--label",
                   "my disk", "--uuid", "6f1f7c0e-93f4-4c1b-8e6a-1d7a0f3b2c5d",
                   "--cipher", "serpent-xts-plain64", "--key-size", "256",
                   "--hash", "sha512", "--kdf", "argon2i", "new", "1000001"} +
             kFastArgon2);
  const std::string dump = Run({"cryptsetup", "luksDump", "new"});
  for (const char* line :
       {"UUID:[ \t]+6f1f7c0e-93f4-4c1b-8e6a-1d7a0f3b2c5d",
        "Label:[ \t]+my disk", "cipher: serpent-xts-plain64", "sector: 4096 ",
        "Key:[ \t]+256 bits", "PBKDF:[ \t]+argon2i\n", "Time cost:[ \t]+4\n",
        "Memory:[ \t]+32\n", "Threads:[ \t]+1\n", "AF hash:[ \t]+sha512"}) {
    EXPECT_THAT(dump, testing::ContainsRegex(line));
  }
  // Whole sectors of 4096.
  EXPECT_EQ(Info({"new"}).at("virtual_size"), 1003520);
  EXPECT_EQ(Export({"--key-file", "key", "new"}).size(), 1003520U);
}

TEST_F(CreateCommandTest, CryptsetupOpensEveryKindOfKeyslot) {
  for (const char* sector_size : {"512", "1024", "2048", "4096"}) {
    for (const char* kdf : {"argon2i", "argon2id"}) {
      MustCreate(Words{"--force", "--format", "raw", "--sector-size",
                       sector_size, "--kdf", kdf, "new", "1M"} +
                 kFastArgon2);
      ExpectCryptsetupOpens("new", "2");
    }
  }
  for (const char* version : {"1", "2"}) {
    for (const char* hash : {"sha1", "sha512", "ripemd160", "whirlpool"}) {
      MustCreate(Words{"--force", "--format", "raw", "--encryption",
                       fmt::format("luks{}", version), "--hash", hash, "new",
                       "1M"} +
                 kFastPbkdf2);
      ExpectCryptsetupOpens("new", version);
    }
  }
}

// The key material is encrypted with the volume's cipher, so a LUKS1 header
// that opens proves the cipher. Other ciphers than AES need the kernel in
// cryptsetup; QEMU judges them (qemu_ciphers_test.cc).
TEST_F(CreateCommandTest, CryptsetupOpensAesInEveryMode) {
  struct Case {
    const char* cipher;
    const char* key_size;
    const char* key_bits;
  };
  for (const Case& c : {Case{"aes-xts-plain64", "", "512"},
                        {"aes-xts-plain64", "256", "256"},
                        {"aes-cbc-essiv:sha256", "", "256"},
                        {"aes-cbc-plain64", "128", "128"},
                        {"aes-cbc-plain64", "192", "192"},
                        {"aes-ctr-plain64", "", "256"},
                        {"aes-ecb", "", "256"}}) {
    SCOPED_TRACE(c.cipher);
    Words options = {"--force",      "--format", "raw",
                     "--encryption", "luks1",    "--cipher",
                     c.cipher,       "new",      "1M"};
    if (*c.key_size != 0) options = options + Words{"--key-size", c.key_size};
    MustCreate(options + kFastPbkdf2);
    EXPECT_THAT(
        Run({"cryptsetup", "luksDump", "new"}),
        testing::ContainsRegex(fmt::format("MK bits:[ \t]+{}", c.key_bits)));
    ExpectCryptsetupOpens("new", "1");
  }
}

TEST_F(CreateCommandTest, DefaultKeysAreAsLongAsTheCipherAllows) {
  for (const auto& [cipher, bits] : {std::pair("serpent-xts-plain64", 512),
                                     {"twofish-cbc-plain", 256},
                                     {"cast5-cbc-plain64", 128},
                                     {"camellia-xts-plain64", 512},
                                     {"sm4-xts-plain64", 256},
                                     {"aria-cbc-essiv:sha256", 256},
                                     {"aes-lrw-benbi", 384}}) {
    MustCreate(
        Words{"--force", "--format", "raw", "--cipher", cipher, "new", "1M"} +
        kFastArgon2);
    EXPECT_EQ(Info({"new"}).at("luks").at("key_bits"), bits) << cipher;
    EXPECT_EQ(Export({"--key-file", "key", "new"}).size(), 1U << 20);
    EXPECT_THAT(Run({"cryptsetup", "luksDump", "new"}), HasSubstr(cipher));
  }
}

TEST_F(CreateCommandTest, AHeaderForAPayloadThatExists) {
  const Bytes payload = Noise(1 << 20, 3);
  WriteHostFile(folder_ / "payload", payload);
  const std::string out = MustCreate(
      Words{"--payload-exists", "--detached-header", "hdr", "payload"} +
      kFastArgon2);
  EXPECT_THAT(out, StartsWith("hdr: detached header, LUKS2 "));
  EXPECT_THAT(out, HasSubstr("for payload; what is there now reads as noise"));
  EXPECT_TRUE(ReadHostFile(folder_ / "payload") == payload);
  ExpectCryptsetupOpens("hdr", "2");
  const Bytes plaintext =
      Export({"--key-file", "key", "--header", "hdr", "payload"});
  EXPECT_EQ(plaintext.size(), payload.size());
  EXPECT_FALSE(plaintext == payload);
}

TEST_F(CreateCommandTest, TheSizeCanComeFromTheBackingFile) {
  const Bytes content = Noise((2 << 20) + 512, 5);
  WriteHostFile(folder_ / "base.raw", content);
  std::filesystem::create_directory(folder_ / "sub");
  // Named as seen from the image, not from here.
  MustCreate(Words{"--backing", "../base.raw", "--backing-format", "raw",
                   "sub/top.qcow2"} +
             kFastPbkdf2);
  EXPECT_TRUE(Export({"--key-file", "key", "sub/top.qcow2"}) == content);
  MustCreate(Words{"--backing", "top.qcow2", "--backing-format", "qcow2",
                   "--encryption", "none", "sub/upper.qcow2", "4M"});
  Bytes longer = content;
  longer.resize(4 << 20);
  EXPECT_TRUE(Export({"--key-file", "key", "sub/upper.qcow2"}) == longer);

  MustCreate(Words{"--format", "raw", "--encryption", "luks1", "volume", "1M"} +
             kFastPbkdf2);
  MustCreate(Words{"--backing", "volume", "--backing-format", "luks",
                   "--encryption", "none", "over-luks.qcow2"});
  EXPECT_EQ(Info({"over-luks.qcow2"}).at("virtual_size"), 1 << 20);
}

TEST_F(CreateCommandTest, ThePassphraseIsAPartOfAFileOrALineOfADescriptor) {
  KeyFile(fmt::format("{}\nnot this", kPassphrase), "line");
  KeyFile(fmt::format("xx{}yy", kPassphrase), "parts");
  MustCreate({"--key-file", "parts", "--key-file-offset", "2",
              "--key-file-size", std::to_string(kPassphrase.size()),
              "--pbkdf2-iterations", "1000", "parts.qcow2", "1M"});
  EXPECT_EQ(Export({"--key-file", "key", "parts.qcow2"}).size(), 1U << 20);
  Run({"sh", "-c", "exec \"$0\" \"$@\" 9< line", PELLUCID_PROGRAM, "create",
       "--passphrase-fd", "9", "--pbkdf2-iterations", "1000", "line.qcow2",
       "1M"});
  EXPECT_EQ(Export({"--key-file", "key", "line.qcow2"}).size(), 1U << 20);
}

TEST_F(CreateCommandTest, JsonIsThatOfInfo) {
  const std::string out = MustCreate(
      Words{"--json", "--detached-header", "hdr", "new", "1M"} + kFastArgon2);
  EXPECT_EQ(json::parse(out), Info({"--header", "hdr", "new"}));
  EXPECT_THAT(MustCreate({"--quiet", "--encryption", "none", "plain", "1M"}),
              IsEmpty());
}

}  // namespace
}  // namespace pellucid
