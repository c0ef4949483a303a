// LUKS volumes whose header is in another file, or that are the guest data of a
// qcow2 image; made by cryptsetup and qemu-img here.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/open_image.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/manifest_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kHeaderBytes = 2 * kMiB;  // cryptsetup's, with key material.
constexpr size_t kPayloadOffsetField = 104;  // 32 bits, in sectors.

class DetachedHeaderTest : public ::testing::Test {
 protected:
  void SetUp() override { WriteHostFile(folder_ / "key", kPassphrase); }

  // A raw LUKS1 volume with its header in front, holding `content`.
  fs::path MakeVolume(const std::string& name, const Bytes& content,
                      unsigned iterations = 1000) {
    WriteHostFile(folder_ / "content", content);
    WriteHostFile(folder_ / name, Bytes(kHeaderBytes + content.size()));
    Format(iterations, {folder_ / name});
    RunTool({"qemu-img", "convert", "-n", "--object", SecretObject(), "-f",
             "raw", folder_ / "content", "--target-image-opts",
             fmt::format("driver=luks,key-secret=s,file.filename={}",
                         (folder_ / name).native())});
    return folder_ / name;
  }

  // A header of cryptsetup's that was made for detached use.
  fs::path MakeDetachedHeader(const std::string& name) {
    // cryptsetup wants a device to be there, and does not write to it.
    WriteHostFile(folder_ / "device", Bytes(kMiB));
    Format(1000, {"--header", folder_ / name, folder_ / "device"});
    return folder_ / name;
  }

  fs::path ToQcow2(const fs::path& raw, uint64_t cluster_size) {
    fs::path image = raw;
    image += fmt::format(".{}.qcow2", cluster_size);
    RunTool({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o",
             fmt::format("cluster_size={}", cluster_size), raw, image});
    return image;
  }

  fs::path Write(const std::string& name, std::span<const std::byte> content) {
    WriteHostFile(folder_ / name, content);
    return folder_ / name;
  }

  static std::unique_ptr<BlockDevice> Open(const fs::path& image,
                                           const fs::path& header = {}) {
    OpenOptions options;
    options.image = image;
    options.header = header;
    return OpenDevice(options, kPassphrase);
  }

  // The error's text; a test that gets no error fails.
  template <typename ErrorType>
  static std::string ErrorOf(const fs::path& image, const fs::path& header = {},
                             const std::string& passphrase = kPassphrase) {
    OpenOptions options;
    options.image = image;
    options.header = header;
    try {
      OpenDevice(options, passphrase);
    } catch (const ErrorType& error) {
      EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
      return error.what();
    }
    ADD_FAILURE() << "was opened";
    return "";
  }

  void Format(unsigned iterations, const std::vector<std::string>& arguments) {
    std::vector<std::string> command = {"cryptsetup",
                                        "luksFormat",
                                        "-q",
                                        "--type",
                                        "luks1",
                                        "--pbkdf-force-iterations",
                                        std::to_string(iterations),
                                        "--key-file",
                                        folder_ / "key"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    RunTool(command);
  }

  std::string SecretObject() const {
    return "secret,id=s,file=" + (folder_ / "key").string();
  }

  static constexpr char kPassphrase[] = "detached";
  ScratchFolder folder_;
};

// A report judges it in the pass that decrypts it.
TEST_F(DetachedHeaderTest, CiphertextIsSeenOnceAsItIsStored) {
  const Bytes content = Noise(2 * kMiB, 1);
  const fs::path volume = MakeVolume("volume", content);
  const Bytes stored = ReadHostFile(volume);
  uint64_t seen = 0;
  bool is_as_stored = true;
  OpenOptions options;
  options.image = volume;
  options.ciphertext_watch = [&](uint64_t offset,
                                 std::span<const std::byte> sectors) {
    seen += sectors.size();
    is_as_stored = is_as_stored &&
                   std::ranges::equal(sectors, std::span(stored).subspan(
                                                   offset, sectors.size()));
  };
  const auto device = OpenDevice(options, kPassphrase);
  seen = 0;
  EXPECT_EQ(FirstDifference(ReadAll(*device), content), "");
  EXPECT_TRUE(is_as_stored);
  EXPECT_EQ(seen, content.size());
}

TEST_F(DetachedHeaderTest, BackupKeepsItsPayloadOffsetInTheOldVolume) {
  const Bytes content = Noise(2 * kMiB, 1);
  const fs::path volume = MakeVolume("volume", content);
  RunTool({"cryptsetup", "luksHeaderBackup", volume, "--header-backup-file",
           folder_ / "backup"});
  Bytes damaged = ReadHostFile(volume);
  std::fill_n(damaged.begin(), 4096, std::byte{0});
  const fs::path payload = Write("damaged", damaged);
  EXPECT_EQ(
      FirstDifference(ReadAll(*Open(payload, folder_ / "backup")), content),
      "");
  // The header in place tells the same, where it is still there.
  EXPECT_EQ(
      FirstDifference(ReadAll(*Open(volume, folder_ / "backup")), content), "");
  EXPECT_EQ(FirstDifference(ReadAll(*Open(volume)), content), "");
}

TEST_F(DetachedHeaderTest, PayloadThatWasCutOutIsReadFromItsStart) {
  const Bytes content = Noise(kMiB, 2);
  Bytes volume = ReadHostFile(MakeVolume("volume", content));
  const uint64_t offset = LoadNumber(volume, kPayloadOffsetField, 4) * 512;
  ASSERT_EQ(volume.size(), offset + content.size());
  const fs::path payload = Write("payload", std::span(volume).subspan(offset));
  volume.resize(offset);
  StoreNumber(volume, kPayloadOffsetField, 4, 0);
  const fs::path header = Write("header", volume);
  const fs::path header_in_qcow2 = ToQcow2(header, 65536);
  for (const fs::path& image : {payload, ToQcow2(payload, 4096)}) {
    for (const fs::path& file : {header, header_in_qcow2}) {
      SCOPED_TRACE(image.native() + " with " + file.native());
      EXPECT_EQ(FirstDifference(ReadAll(*Open(image, file)), content), "");
    }
  }
}

TEST_F(DetachedHeaderTest, OneHeaderServesTwoPayloadsAtTheSameTime) {
  const fs::path header = MakeDetachedHeader("header");
  const fs::path raw = Write("one", Noise(kMiB, 3));
  const fs::path qcow2 = ToQcow2(Write("two", Noise(2 * kMiB, 4)), 4096);
  const auto first = Open(raw, header);
  const auto second = Open(qcow2, header);
  EXPECT_EQ(first->size(), kMiB);
  EXPECT_EQ(second->size(), 2 * kMiB);
  // Both sectors 5 have the same key and tweak: their ciphertexts decide.
  Bytes plain_first = ReadAll(*first);
  const Bytes plain_second = ReadAll(*second);
  EXPECT_NE(plain_first,
            Bytes(plain_second.begin(), plain_second.begin() + kMiB));
  EXPECT_EQ(FirstDifference(ReadAll(*Open(qcow2, header)), plain_second), "");
  EXPECT_EQ(CheckExtents(*first, plain_first), 0U);
  EXPECT_EQ(CheckExtents(*second, plain_second), 0U);
}

TEST_F(DetachedHeaderTest, HeaderOfQemusDocumentServesRawAndQcow2) {
  const auto image_of = [](const std::string& id) {
    for (RealImage& image : RealImagesOf({"luks1"})) {
      if (image.id == id) return image;
    }
    throw std::runtime_error("no case " + id);
  };
  const RealImage raw = image_of("det-raw-ext4");
  const RealImage qcow2 = image_of("det-qcow2");
  ASSERT_EQ(raw.header, qcow2.header);
  const fs::path unpacked = Unpack(raw);
  Unpack(qcow2);
  KnownPassphrases passphrases({raw.secret->passphrase});
  const auto first = OpenImage(raw.options(unpacked), passphrases).device;
  const auto second = OpenImage(qcow2.options(unpacked), passphrases).device;
  EXPECT_EQ(Sha256(ReadAll(*first)), raw.active.sha256);
  EXPECT_EQ(Sha256(ReadAll(*second)), qcow2.active.sha256);
}

TEST_F(DetachedHeaderTest, HoleInThePayloadIsDataAndNoise) {
  const fs::path header = MakeDetachedHeader("header");
  RunTool(
      {"qemu-img", "create", "-q", "-f", "qcow2", folder_ / "payload", "3M"});
  const auto device = Open(folder_ / "payload", header);
  const Bytes content = ReadAll(*device);
  EXPECT_EQ(CheckExtents(*device, content), 0U);
  EXPECT_GT(std::ranges::count_if(
                content, [](std::byte b) { return b != std::byte{0}; }),
            static_cast<std::ptrdiff_t>(content.size() / 2));
}

TEST_F(DetachedHeaderTest, VolumeInGuestDataOfQcow2IsFound) {
  const Bytes content = Noise(kMiB + 512, 5);
  const fs::path volume = MakeVolume("volume", content);
  for (const uint64_t cluster_size : {512U, 65536U}) {
    SCOPED_TRACE(cluster_size);
    const fs::path image = ToQcow2(volume, cluster_size);
    const auto device = Open(image);
    const Bytes found = ReadAll(*device);
    EXPECT_EQ(FirstDifference(found, content), "");
    EXPECT_EQ(CheckExtents(*device, found), 0U);
    OpenOptions options;
    options.image = image;
    const ImageInfo info = DescribeImage(options);
    EXPECT_EQ(info.virtual_size, content.size());
    EXPECT_EQ(info.qcow2->encryption, "none");
    ASSERT_TRUE(info.luks.has_value());
    EXPECT_EQ(info.luks->cipher, "aes");
    options.encryption = Encryption::kNone;
    EXPECT_EQ(
        FirstDifference(ReadAll(*OpenDevice(options)), ReadHostFile(volume)),
        "");
  }
}

TEST_F(DetachedHeaderTest, WrongPassphraseNamesTheHeaderAndCostsOneDerivation) {
  const fs::path volume = MakeVolume("volume", Noise(kMiB, 6), 500000);
  const auto time_of = [](const auto& action) {
    const auto start = std::chrono::steady_clock::now();
    action();
    return std::chrono::steady_clock::now() - start;
  };
  // One slot is in use, so a wrong passphrase takes no longer than a right one,
  // which also derives the digest; twice that leaves room for a busy machine.
  auto right = time_of([&] { Open(volume); });
  right = std::max(right, time_of([&] { Open(volume); }));
  const auto wrong = time_of([&] {
    EXPECT_THAT(ErrorOf<WrongPassphrase>(volume, {}, "wrong"),
                HasSubstr("volume"));
  });
  EXPECT_LT(wrong, 3 * right + std::chrono::milliseconds(200));
  const fs::path header = MakeDetachedHeader("the-header");
  EXPECT_THAT(ErrorOf<WrongPassphrase>(volume, header, "wrong"),
              HasSubstr("the-header"));
  EXPECT_THAT(ErrorOf<WrongPassphrase>(volume, header, ""),
              HasSubstr("the-header"));
}

TEST_F(DetachedHeaderTest, HeaderOfALargerVolumeIsNamedInTheError) {
  const fs::path header = MakeVolume("header", Noise(4096, 7));
  const fs::path payload = Write("payload", Noise(64 << 10, 8));
  const std::string error = ErrorOf<CorruptImage>(payload, header);
  EXPECT_THAT(error, HasSubstr("header"));
  EXPECT_THAT(error, HasSubstr("payload"));
  EXPECT_THAT(error, HasSubstr("(byte 104)"));
}

TEST_F(DetachedHeaderTest, FileThatIsNoHeaderIsRefused) {
  const fs::path payload = Write("payload", Noise(kMiB, 9));
  for (const Bytes& content : {Noise(kMiB, 10), Bytes(kMiB), Noise(3, 1)}) {
    const fs::path header = Write("not-a-header", content);
    EXPECT_THAT(ErrorOf<Error>(payload, header), HasSubstr("not-a-header"));
  }
  EXPECT_THAT(ErrorOf<Error>(payload, Write("not-a-header", Bytes{})),
              HasSubstr("not-a-header"));
  EXPECT_THAT(ErrorOf<IoError>(payload, folder_ / "not-there"),
              HasSubstr("not-there"));
  EXPECT_THAT(ErrorOf<Error>(payload, folder_.path()),
              HasSubstr(folder_.path().filename().native()));
}

TEST_F(DetachedHeaderTest, CutHeaderIsRefusedAtEveryLength) {
  const Bytes header = ReadHostFile(MakeDetachedHeader("whole"));
  const fs::path payload = Write("payload", Noise(kMiB, 11));
  const uint64_t material = LoadNumber(header, 208 + 40, 4) * 512;
  const uint64_t key_bytes = LoadNumber(header, 108, 4);
  const uint64_t material_end = material + key_bytes * 4000;
  std::vector<uint64_t> lengths = {material - 1, material, material + 1,
                                   material_end - 512, material_end - 1};
  for (uint64_t length = 0; length <= 600; ++length) lengths.push_back(length);
  for (const uint64_t length : lengths) {
    SCOPED_TRACE(length);
    const fs::path cut = Write("cut", std::span(header).first(length));
    EXPECT_THAT(ErrorOf<CorruptImage>(payload, cut), HasSubstr("cut"));
  }
  // The key material of slots that are not in use need not be there.
  EXPECT_EQ(Open(payload, Write("cut", std::span(header).first(
                                           (material_end + 511) / 512 * 512)))
                ->size(),
            kMiB);
}

TEST_F(DetachedHeaderTest, PayloadThatIsNoMultipleOfASectorLosesItsRest) {
  const fs::path header = MakeDetachedHeader("header");
  const Bytes ciphertext = Noise(65536 + 77, 12);
  const fs::path odd = Write("odd", ciphertext);
  const fs::path even = Write("even", std::span(ciphertext).first(65536));
  const auto device = Open(odd, header);
  EXPECT_EQ(device->size(), 65536U);
  EXPECT_EQ(FirstDifference(ReadAll(*device), ReadAll(*Open(even, header))),
            "");
}

TEST_F(DetachedHeaderTest, HeaderWithEncryptionNoneIsAUsageError) {
  OpenOptions options;
  options.image = Write("payload", Noise(kMiB, 13));
  options.header = MakeDetachedHeader("header");
  options.encryption = Encryption::kNone;
  EXPECT_THROW(OpenDevice(options, kPassphrase), UsageError);
}

}  // namespace
}  // namespace pellucid
