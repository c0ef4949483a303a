// What `pellucid check` finds and repairs in LUKS2 volumes of cryptsetup.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string>

#include "crypto/hash.h"
#include "engine/check_image.h"
#include "tests/engine/findings_text.h"
#include "tests/engine/manifest_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// LUKS2 from cryptsetup, raw.
class CheckLuks2Test : public ::testing::Test {
 protected:
  static constexpr uint64_t kHdrSize = 16384;

  CheckLuks2Test() {
    for (const RealImage& image : RealImagesOf({"luks2"})) {
      if (image.id == "luks2-pbkdf2-cbc-2048") {
        content_ = ReadHostFile(image.options(Unpack(image)).image);
      }
    }
    options_.image = folder_ / "volume.luks";
    Put(content_);
  }
  void Put(const Bytes& content) { WriteHostFile(options_.image, content); }
  Bytes Content() const { return ReadHostFile(options_.image); }
  CheckReport Check(Repair repair = Repair::kNone) {
    return CheckImage(options_, repair);
  }

  ScratchFolder folder_;
  OpenOptions options_;
  Bytes content_;
};

TEST_F(CheckLuks2Test, AGoodVolumeIsClean) {
  const CheckReport report = Check();
  EXPECT_TRUE(report.has_luks_header);
  EXPECT_EQ(report.format, "raw");
  EXPECT_FALSE(report.clusters.has_value());
  EXPECT_EQ(report.findings.count(), 0U) << TextsOf(report.findings);
}

TEST_F(CheckLuks2Test, EitherCopyIsHealedFromTheOther) {
  for (const uint64_t at : {uint64_t{0}, kHdrSize}) {
    Bytes image = content_;
    image[at + 5000] ^= std::byte{1};
    Put(image);
    const CheckReport before = Check();
    EXPECT_EQ(before.findings.count(FindingKind::kLuksCopy), 1U);
    EXPECT_THAT(TextsOf(before.findings),
                AllOf(HasSubstr("volume.luks"),
                      HasSubstr(at == 0 ? "first copy" : "second copy"),
                      HasSubstr(fmt::format("byte {}", at + 448))));
    ASSERT_EQ(Content(), image);
    EXPECT_EQ(Check(Repair::kLeaks).findings.count(FindingKind::kLuksCopy), 1U);
    ASSERT_EQ(Content(), image);
    const CheckReport after = Check(Repair::kAll);
    EXPECT_EQ(after.findings.count(), 0U) << TextsOf(after.findings);
    EXPECT_EQ(after.hazards_fixed, 1U);
    RunTool({"cryptsetup", "luksDump", options_.image});
  }
}

// Both checksums fit and both numbers are the same: each program believes the
// one that it looks at first.
TEST_F(CheckLuks2Test, CopiesOfOneAgeThatDifferAreMadeAlike) {
  Bytes image = content_;
  const std::span second = std::span(image).subspan(kHdrSize, kHdrSize);
  second[4096 + 20] ^= std::byte{1};  // In the JSON.
  std::ranges::fill(second.subspan(448, 64), std::byte{0});
  const auto hasher = crypto::MakeHasher("sha256");
  hasher->Update(second);
  hasher->Final(second.subspan(448, 32));
  Put(image);
  const CheckReport before = Check();
  EXPECT_EQ(before.findings.count(FindingKind::kLuksCopy), 1U);
  EXPECT_THAT(TextsOf(before.findings), HasSubstr("equally old"));
  EXPECT_EQ(Check(Repair::kAll).findings.count(), 0U);
  const Bytes repaired = Content();
  EXPECT_TRUE(std::equal(repaired.begin() + 4096, repaired.begin() + kHdrSize,
                         repaired.begin() + kHdrSize + 4096));
}

TEST_F(CheckLuks2Test, TwoDamagedCopiesAreAFaultOfTheHeader) {
  Bytes image = content_;
  image[5000] ^= std::byte{1};
  image[kHdrSize + 5000] ^= std::byte{1};
  Put(image);
  const CheckReport report = Check(Repair::kAll);
  EXPECT_EQ(report.findings.count(FindingKind::kLuksHeader), 1U);
  EXPECT_THAT(TextsOf(report.findings), HasSubstr("both copies"));
  EXPECT_EQ(Content(), image);
}

TEST_F(CheckLuks2Test, OverwrittenKeyMaterialIsFound) {
  Bytes image = content_;
  // Keyslot areas begin behind both copies.
  std::fill_n(image.begin() + 2 * kHdrSize + 1024, 512, std::byte{'x'});
  Put(image);
  const CheckReport report = Check();
  EXPECT_EQ(report.findings.count(FindingKind::kKeyslot), 1U);
  EXPECT_THAT(TextsOf(report.findings),
              AllOf(HasSubstr("volume.luks: keyslot 0: 1 of the "),
                    HasSubstr(fmt::format("byte {}", 2 * kHdrSize + 1024))));
  EXPECT_EQ(report.findings.list().at(0).offset, 2 * kHdrSize + 1024);
}

TEST_F(CheckLuks2Test, APayloadThatIsMissingIsFound) {
  Put({content_.begin(), content_.begin() + (1 << 20)});
  const CheckReport report = Check();
  EXPECT_NE(report.findings.count(FindingKind::kLuksHeader), 0U)
      << TextsOf(report.findings);
}

TEST_F(CheckLuks2Test, ADetachedHeaderIsCheckedWithItsPayload) {
  OpenOptions options = options_;
  options.header = options_.image;
  options.image = folder_ / "payload";
  WriteHostFile(options.image, Noise(content_.size(), 3));
  EXPECT_EQ(CheckImage(options, Repair::kNone).findings.count(), 0U);
  Bytes header = content_;
  header[5000] ^= std::byte{1};
  Put(header);
  EXPECT_EQ(
      CheckImage(options, Repair::kNone).findings.count(FindingKind::kLuksCopy),
      1U);
  EXPECT_EQ(CheckImage(options, Repair::kAll).findings.count(), 0U);
  WriteHostFile(options.header, Noise(1 << 20, 9));
  const CheckReport report = CheckImage(options, Repair::kNone);
  EXPECT_EQ(report.findings.count(FindingKind::kLuksHeader), 1U);
  EXPECT_THAT(TextsOf(report.findings), HasSubstr("there is no LUKS header"));
}

}  // namespace
}  // namespace pellucid
