// Images that QEMU and cryptsetup wrote, judged by hashes that were known
// beforehand (tests/images/README.md).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/open_image.h"
#include "tests/engine/manifest_fixture.h"
#include "tests/engine/opened_image_fixture.h"

namespace pellucid {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

// What the engine opens; a new kind of image needs to be named here only.
const std::set<std::string> kOpenedEncryptions = {"none", "aes", "luks",
                                                  "luks1", "luks2"};

std::vector<RealImage> Select(const std::set<std::string>& kinds,
                              bool must_be_refused) {
  std::vector<RealImage> selected;
  for (RealImage& image : RealImagesOf(kinds)) {
    if (image.must_be_refused == must_be_refused) {
      selected.push_back(std::move(image));
    }
  }
  return selected;
}

std::string NameOf(const ::testing::TestParamInfo<RealImage>& info) {
  return TestName(info.param);
}

class RealImageTestBase : public ::testing::TestWithParam<RealImage> {
 protected:
  std::unique_ptr<BlockDevice> Open(const OpenOptions& options,
                                    const ManifestSecret& secret) {
    KnownPassphrases passphrases = GetParam().Passphrases(unpacked_, secret);
    return OpenImage(options, passphrases).device;
  }
  std::unique_ptr<BlockDevice> Open(const OpenOptions& options) {
    return Open(options, GetParam().secret.value_or(ManifestSecret{}));
  }

  const std::filesystem::path unpacked_ = Unpack(GetParam());
  const OpenOptions options_ = GetParam().options(unpacked_);
};

class RealImageTest : public RealImageTestBase {
 protected:
  // A LUKS volume is ciphertext throughout; the others may have holes.
  bool is_luks_volume() const {
    return GetParam().encryption == "luks1" || GetParam().encryption == "luks2";
  }

  void CheckContent(BlockDevice& device, const ExpectedContent& expected) {
    ASSERT_EQ(device.size(), expected.virtual_size);
    for (const ExpectedExtent& extent : expected.extents) {
      Bytes bytes(extent.length);
      device.Read(extent.offset, bytes);
      EXPECT_EQ(Sha256(bytes), extent.sha256)
          << extent.length << " bytes at " << extent.offset;
    }
    // Pieces that are no multiple of a sector.
    const Bytes content = ReadAll(device, 300007);
    EXPECT_EQ(Sha256(content), expected.sha256);
    const uint64_t holes = CheckExtents(device, content);
    if (is_luks_volume()) {
      EXPECT_EQ(holes, 0U);
    }
    CheckRandomReads(device, content, 100, content.size());
  }
};

TEST_P(RealImageTest, ShowsThePlaintextOfTheManifest) {
  const auto device = Open(options_);
  CheckContent(*device, GetParam().active);
}

TEST_P(RealImageTest, IsRecognisedWithoutBeingToldItsFormat) {
  OpenOptions options = options_;
  options.format = ContainerFormat::kAuto;
  options.header_format = ContainerFormat::kAuto;
  const auto device = Open(options);
  EXPECT_EQ(device->size(), GetParam().active.virtual_size);
  EXPECT_EQ(Sha256(ReadAll(*device)), GetParam().active.sha256);
}

TEST_P(RealImageTest, ShowsEverySnapshotByNameAndById) {
  for (const ExpectedContent& snapshot : GetParam().snapshots) {
    for (const std::string& key :
         {snapshot.snapshot_name, snapshot.snapshot_id}) {
      SCOPED_TRACE(key);
      OpenOptions options = options_;
      options.snapshot = key;
      const auto device = Open(options);
      CheckContent(*device, snapshot);
    }
  }
}

TEST_P(RealImageTest, OpensWithEachOfItsSecretsAndTheirKeyslots) {
  std::vector<ManifestSecret> secrets = GetParam().other_secrets;
  if (GetParam().secret) secrets.push_back(*GetParam().secret);
  for (const ManifestSecret& secret : secrets) {
    if (!secret.only_if_slot_named) {
      EXPECT_EQ(Open(options_, secret)->size(), GetParam().active.virtual_size);
    }
    if (!secret.keyslot) continue;
    SCOPED_TRACE(*secret.keyslot);
    OpenOptions options = options_;
    options.keyslot = secret.keyslot;
    const auto device = Open(options, secret);
    EXPECT_EQ(Sha256(ReadAll(*device)), GetParam().active.sha256);
    options.keyslot = *secret.keyslot == 0 ? 1 : *secret.keyslot - 1;
    EXPECT_THROW(Open(options, secret), WrongPassphrase);
  }
}

TEST_P(RealImageTest, RefusesWrongSecrets) {
  std::vector<ManifestSecret> refused = GetParam().refused_secrets;
  const bool can_tell = GetParam().encryption.starts_with("luks");
  if (can_tell) {
    refused.push_back({.passphrase = "wrong",
                       .key_file = "",
                       .keyslot = std::nullopt,
                       .only_if_slot_named = false});
  }
  for (const ManifestSecret& secret : refused) {
    SCOPED_TRACE(secret.passphrase);
    EXPECT_THROW(Open(options_, secret), WrongPassphrase);
  }
}

TEST_P(RealImageTest, IsDescribedWithoutAPassphrase) {
  const ImageInfo info = DescribeImage(options_);
  EXPECT_EQ(info.virtual_size, GetParam().active.virtual_size);
  EXPECT_EQ(info.file, options_.image);
  EXPECT_EQ(info.format,
            options_.format == ContainerFormat::kRaw ? "raw" : "qcow2");
  EXPECT_EQ(info.backing != nullptr, !GetParam().backing.empty());
  EXPECT_EQ(info.backing_error, "");
  EXPECT_EQ(info.luks.has_value(), is_luks_volume());
  if (!info.qcow2) return;
  const std::string& encryption = GetParam().encryption;
  EXPECT_EQ(info.qcow2->encryption, is_luks_volume() ? "none" : encryption);
  EXPECT_EQ(info.qcow2->luks.has_value(), encryption == "luks");
  if (GetParam().compressed_clusters) {
    EXPECT_EQ(info.qcow2->compressed_clusters, GetParam().compressed_clusters);
  }
  ASSERT_EQ(info.qcow2->snapshots.size(), GetParam().snapshots.size());
  for (size_t i = 0; i < info.qcow2->snapshots.size(); ++i) {
    const ExpectedContent& expected = GetParam().snapshots[i];
    EXPECT_EQ(info.qcow2->snapshots[i].name, expected.snapshot_name);
    EXPECT_EQ(info.qcow2->snapshots[i].id, expected.snapshot_id);
    EXPECT_EQ(info.qcow2->snapshots[i].virtual_size, expected.virtual_size);
  }
}

INSTANTIATE_TEST_SUITE_P(Manifest, RealImageTest,
                         ::testing::ValuesIn(Select(kOpenedEncryptions, false)),
                         NameOf);

// Images that somebody tampered with.
using RefusedRealImageTest = RealImageTestBase;
// There are none among the images here, only in folders given from outside.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RefusedRealImageTest);

TEST_P(RefusedRealImageTest, IsRefusedInTimeWithItsName) {
  const auto start = std::chrono::steady_clock::now();
  try {
    Open(options_);
    ADD_FAILURE() << "was opened";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(GetParam().image));
    EXPECT_THAT(error.exit_code(),
                AnyOf(ExitCode::kCorruptImage, ExitCode::kUnsupported));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

INSTANTIATE_TEST_SUITE_P(Manifest, RefusedRealImageTest,
                         ::testing::ValuesIn(Select(kOpenedEncryptions, true)),
                         NameOf);

TEST(RealImages, EveryCaseIsInOneOfTheTests) {
  std::ifstream file(PELLUCID_TEST_IMAGES "/manifest.json");
  const nlohmann::json manifest = nlohmann::json::parse(file);
  for (const nlohmann::json& entry : manifest.at("cases")) {
    EXPECT_TRUE(kOpenedEncryptions.contains(entry.at("open").at("encryption")))
        << entry.at("id");
  }
  EXPECT_GE(RealImagesOf(kOpenedEncryptions).size(), 66U);
  const auto promises_compression = [](const nlohmann::json& entry) {
    return entry.contains("compressed_clusters");
  };
  EXPECT_EQ(std::ranges::count_if(manifest.at("cases"), promises_compression),
            4)
      << "plain and encrypted, zlib and zstd";
}

}  // namespace
}  // namespace pellucid
