// Images that are opened for writing: what we write, others read; what must
// not be written is refused before anybody is asked for a passphrase.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/open_image.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kPassphrase[] = "open sesame";
constexpr uint64_t kDiskSize = (5 << 20) + 4096;

class WritableOpenTest : public ::testing::Test {
 protected:
  WritableOpenTest() { WriteHostFile(key_, kPassphrase); }

  OpenOptions Options(const fs::path& image) const {
    OpenOptions options;
    options.image = image;
    options.writable = true;
    return options;
  }

  OpenedImage Open(const OpenOptions& options) {
    KnownPassphrases passphrases({kPassphrase});
    return OpenImage(options, passphrases);
  }

  // A volume whose header and ciphertext are QEMU's.
  void MakeLuks1() {
    const std::vector<std::string> command = {
        "qemu-img",
        "create",
        "-q",
        "-f",
        "luks",
        "--object",
        "secret,id=s,file=" + key_.string(),
        "-o",
        "key-secret=s,iter-time=10",
        luks_,
        std::to_string(kDiskSize)};
    // QEMU's measurement of the processor fails on a busy machine.
    for (int tries = 20; RunProgram(command).exit_code != 0; --tries) {
      ASSERT_GT(tries, 0);
    }
  }

  // The plaintext as QEMU has it.
  Bytes ContentByQemu() const {
    const fs::path plain = folder_ / "plain-by-qemu";
    RunTool({"qemu-img", "convert", "-O", "raw", "--object",
             "secret,id=s,file=" + key_.string(), "--image-opts",
             fmt::format("driver=luks,key-secret=s,file.filename={}",
                         luks_.native()),
             plain});
    return ReadHostFile(plain);
  }

  // Writes of many sizes and alignments, zeroes among them.
  static void Scribble(WritableDevice& device, Bytes& model, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 200; ++i) {
      const uint64_t offset = random() % model.size();
      const uint64_t length =
          1 + random() % std::min<uint64_t>(model.size() - offset,
                                            uint64_t{1} << random() % 20);
      const auto at = model.begin() + static_cast<ptrdiff_t>(offset);
      if (i % 5 == 0) {
        device.WriteZeroes(offset, length, ZeroMode::kFreeSpace);
        std::fill_n(at, length, std::byte{0});
      } else {
        const Bytes data = Noise(length, random());
        device.Write(offset, data);
        std::ranges::copy(data, at);
      }
    }
    device.Flush();
  }

  ScratchFolder folder_;
  const fs::path key_ = folder_ / "key";
  const fs::path luks_ = folder_ / "disk.luks";
  const fs::path raw_ = folder_ / "disk.raw";
};

TEST_F(WritableOpenTest, OnlyAWritableOpenGivesAWritableDevice) {
  WriteHostFile(raw_, Noise(4096, 1));
  OpenOptions options = Options(raw_);
  {
    const OpenedImage opened = Open(options);
    EXPECT_EQ(opened.writable, opened.device.get());
    EXPECT_EQ(opened.image_stat.st_size, 4096);
  }
  options.writable = false;
  EXPECT_EQ(Open(options).writable, nullptr);
}

TEST_F(WritableOpenTest, RawImageHoldsWhatWasWritten) {
  Bytes model = Noise(1 << 20, 1);
  WriteHostFile(raw_, model);
  Scribble(*Open(Options(raw_)).writable, model, 3);
  EXPECT_EQ(FirstDifference(ReadHostFile(raw_), model), "");
}

TEST_F(WritableOpenTest, QemuReadsWhatWeWriteToItsVolume) {
  MakeLuks1();
  const Bytes header_before = ReadHostFile(luks_);
  Bytes model;
  {
    const OpenedImage opened = Open(Options(luks_));
    model = ReadAll(*opened.device);
    ASSERT_EQ(model.size(), kDiskSize);
    Scribble(*opened.writable, model, 4);
    EXPECT_EQ(FirstDifference(ReadAll(*opened.device), model), "");
  }
  EXPECT_EQ(FirstDifference(ContentByQemu(), model), "");
  const Bytes after = ReadHostFile(luks_);
  ASSERT_EQ(after.size(), header_before.size());
  const auto header_bytes = static_cast<ptrdiff_t>(after.size() - kDiskSize);
  EXPECT_TRUE(std::equal(after.begin(), after.begin() + header_bytes,
                         header_before.begin()));
}

TEST_F(WritableOpenTest, WeReadWhatQemuWritesBesideOurs) {
  MakeLuks1();
  Bytes model;
  {
    const OpenedImage opened = Open(Options(luks_));
    model = ReadAll(*opened.device);
    Scribble(*opened.writable, model, 5);
  }
  RunTool(
      {"qemu-io", "--object", "secret,id=s,file=" + key_.string(),
       "--image-opts",
       fmt::format("driver=luks,key-secret=s,file.filename={}", luks_.native()),
       "-c", "write -P 42 100k 300k"});
  std::fill_n(model.begin() + (100 << 10), 300 << 10, std::byte{42});
  EXPECT_EQ(FirstDifference(ReadAll(*Open(Options(luks_)).device), model), "");
}

// No program here reads LUKS2 without the kernel's device mapper: Python's
// cryptography library decrypts with the volume key that cryptsetup tells.
TEST_F(WritableOpenTest, LargeSectorsOfLuks2AreThoseOfTheSpecification) {
  constexpr uint64_t kPayload = 16 << 20;
  WriteHostFile(luks_, Bytes(kPayload + (1 << 20)));
  RunTool({"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf",
           "pbkdf2", "--pbkdf-force-iterations", "1000", "--sector-size",
           "4096", "--cipher", "aes-xts-plain64", "--key-size", "512",
           "--key-file", key_, luks_});
  Bytes model;
  {
    const OpenedImage opened = Open(Options(luks_));
    ASSERT_EQ(opened.device->size(), 1U << 20);
    model = ReadAll(*opened.device);
    Scribble(*opened.writable, model, 6);
  }
  const fs::path volume_key = folder_ / "volume-key";
  RunTool({"cryptsetup", "luksDump", "-q", "--dump-volume-key",
           "--volume-key-file", volume_key, "--key-file", key_, luks_});
  const fs::path plain = folder_ / "plain-by-python";
  RunTool({"python3", "-c", R"(
import struct, sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
image, key, plain, offset = sys.argv[1:]
key = open(key, 'rb').read()
with open(image, 'rb') as f, open(plain, 'wb') as out:
    f.seek(int(offset))
    sector = 0
    while data := f.read(4096):
        tweak = struct.pack('<QQ', sector, 0)
        aes = Cipher(algorithms.AES(key), modes.XTS(tweak)).decryptor()
        out.write(aes.update(data) + aes.finalize())
        sector += 8
)",
           luks_, volume_key, plain, std::to_string(kPayload)});
  EXPECT_EQ(FirstDifference(ReadHostFile(plain), model), "");
}

TEST_F(WritableOpenTest, DetachedHeaderIsOnlyRead) {
  const fs::path header = folder_ / "header";
  WriteHostFile(raw_, Bytes(1 << 20));
  RunTool({"cryptsetup", "luksFormat", "-q", "--type", "luks1",
           "--pbkdf-force-iterations", "1000", "--key-file", key_, "--header",
           header, raw_});
  OpenOptions options = Options(raw_);
  options.header = header;
  const Bytes header_before = ReadHostFile(header);
  Bytes model;
  {
    const OpenedImage first = Open(options);
    model = ReadAll(*first.device);
    // Another payload can use the header at the same time.
    const fs::path other = folder_ / "other.raw";
    WriteHostFile(other, Bytes(1 << 20));
    OpenOptions other_options = options;
    other_options.image = other;
    EXPECT_NE(Open(other_options).writable, nullptr);
    Scribble(*first.writable, model, 7);
  }
  options.writable = false;
  EXPECT_EQ(FirstDifference(ReadAll(*Open(options).device), model), "");
  EXPECT_EQ(ReadHostFile(header), header_before);
}

TEST_F(WritableOpenTest, ImageThatIsItsOwnDetachedHeaderIsOnlyRead) {
  MakeLuks1();
  OpenOptions options = Options(luks_);
  options.header = luks_;
  EXPECT_THAT(ThrownText<Unsupported>([&] { Open(options); }),
              HasSubstr("--read-only"));
  options.writable = false;
  EXPECT_EQ(Open(options).device->size(), kDiskSize);
}

TEST_F(WritableOpenTest, WhatContradictsWritingIsRefused) {
  WriteHostFile(raw_, Noise(4096, 1));
  const std::vector<std::function<void(OpenOptions&)>> contradictions = {
      [](OpenOptions& options) { options.snapshot = "before"; },
      [](OpenOptions& options) { options.encryption = Encryption::kNone; },
      [](OpenOptions& options) { options.force_share = true; }};
  for (const auto& contradict : contradictions) {
    OpenOptions options = Options(raw_);
    contradict(options);
    EXPECT_THAT(ThrownText<UsageError>([&] { Open(options); }),
                HasSubstr("--read-only"));
  }
}

TEST_F(WritableOpenTest, CorruptImageIsRefusedBeforeThePassphrase) {
  const fs::path image = folder_ / "disk.qcow2";
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", image, "1M"});
  Bytes content = ReadHostFile(image);
  StoreNumber(content, 72, 8, 2);  // incompatible_features: corrupt.
  WriteHostFile(image, content);
  EXPECT_THAT(ThrownText<CorruptImage>([&] { Open(Options(image)); }),
              AllOf(HasSubstr("marked as corrupt"), HasSubstr("--read-only")));
  EXPECT_EQ(ReadHostFile(image), content);
}

TEST_F(WritableOpenTest, MissingFileHasNoSuchRemedy) {
  EXPECT_THAT(ThrownText<IoError>([&] { Open(Options(folder_ / "none")); }),
              testing::Not(HasSubstr("--read-only")));
}

}  // namespace
}  // namespace pellucid
