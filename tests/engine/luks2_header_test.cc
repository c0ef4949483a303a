// The two copies of a LUKS2 header: which one counts, and what is said of the
// other. The copies come from cryptsetup.

#include "engine/luks/luks2_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "crypto/hash.h"
#include "engine/errors.h"
#include "engine/luks/located_header.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/manifest_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::luks {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kHdrSize = 16384;  // Of the image below.
constexpr uint64_t kSeqid = 16;
constexpr uint64_t kChecksum = 448;

class Luks2HeaderTest : public testing::Test {
 protected:
  Luks2HeaderTest() : device_(LoadImage()) {}

  static Bytes LoadImage() {
    for (const RealImage& image : RealImagesOf({"luks2"})) {
      if (image.id == "luks2-pbkdf2-cbc-2048") {
        return ReadHostFile(image.options(Unpack(image)).image);
      }
    }
    throw std::runtime_error("the manifest has no luks2-pbkdf2-cbc-2048");
  }

  Luks2Copies Read() {
    return ReadLuks2Copies(device_, 0, device_.size(), "disk.img");
  }

  std::span<std::byte> Copy(uint64_t at) {
    return std::span(device_.bytes()).subspan(at, kHdrSize);
  }

  // Makes the checksum of a changed copy fit again.
  void Seal(uint64_t at) {
    const auto copy = Copy(at);
    std::ranges::fill(copy.subspan(kChecksum, 64), std::byte{0});
    const auto hasher = crypto::MakeHasher("sha256");
    hasher->Update(copy);
    hasher->Final(copy.subspan(kChecksum, 32));
  }

  void SetSeqid(uint64_t at, uint64_t seqid) {
    StoreNumber(Copy(at), kSeqid, 8, seqid);
    Seal(at);
  }

  MemoryDevice device_;
};

TEST_F(Luks2HeaderTest, TwoGoodCopiesGiveTheFirstWithoutAWord) {
  const Luks2Copies copies = Read();
  EXPECT_EQ(copies.newest.hdr_offset, 0u);
  EXPECT_EQ(copies.newest.hdr_size, kHdrSize);
  EXPECT_THAT(copies.warnings, IsEmpty());
  EXPECT_TRUE(copies.newest.json.starts_with("{"));
}

TEST_F(Luks2HeaderTest, ADamagedFirstCopyIsReportedAndTheSecondUsed) {
  device_.bytes()[5000] ^= std::byte{1};
  const Luks2Copies copies = Read();
  EXPECT_EQ(copies.newest.hdr_offset, kHdrSize);
  EXPECT_THAT(copies.warnings,
              ElementsAre(testing::AllOf(HasSubstr("disk.img: the first copy"),
                                         HasSubstr("checksum (byte 448)"))));
}

TEST_F(Luks2HeaderTest, AnErasedFirstCopyIsFoundByTheSecond) {
  std::ranges::fill(Copy(0), std::byte{0});
  EXPECT_TRUE(IsLuksVolume(device_));
  const Luks2Copies copies = Read();
  EXPECT_EQ(copies.newest.hdr_offset, kHdrSize);
  EXPECT_THAT(copies.warnings, ElementsAre(HasSubstr("no magic at byte 0")));
}

TEST_F(Luks2HeaderTest, ASecondCopyBehindAnotherSignatureIsARemnant) {
  std::ranges::fill(Copy(0), std::byte{0});
  const Bytes erased = device_.bytes();
  const std::pair<size_t, std::string_view> signatures[] = {
      {510, "\x55\xaa"},     {512, "EFI PART"}, {1080, "\x53\xef"},
      {0, "XFSB"},           {536, "LVM2 001"}, {4086, "SWAPSPACE2"},
      {0x10040, "_BHRfS_M"},
  };
  for (const auto& [at, magic] : signatures) {
    device_.bytes() = erased;
    EXPECT_TRUE(IsLuksVolume(device_));
    std::ranges::copy(std::as_bytes(std::span(magic)),
                      device_.bytes().begin() + static_cast<ptrdiff_t>(at));
    EXPECT_FALSE(IsLuksVolume(device_)) << magic;
  }
}

// As every raw disk image without a partition table.
TEST_F(Luks2HeaderTest, LookingForACopyWhereThereIsNoneCostsLittle) {
  MemoryDevice plain{Bytes(8 << 20)};
  EXPECT_FALSE(IsLuksVolume(plain));
  EXPECT_LE(plain.bytes_read(), 4096U + 72 + 9 * 8);
}

TEST_F(Luks2HeaderTest, ADamagedSecondCopyIsReported) {
  device_.bytes()[kHdrSize + 300] ^= std::byte{1};
  const Luks2Copies copies = Read();
  EXPECT_EQ(copies.newest.hdr_offset, 0u);
  EXPECT_THAT(copies.warnings, ElementsAre(HasSubstr("the second copy")));
}

TEST_F(Luks2HeaderTest, TheNewerOfTwoGoodCopiesIsUsed) {
  const uint64_t seqid = Read().newest.seqid;
  SetSeqid(kHdrSize, seqid + 1);
  const Luks2Copies copies = Read();
  EXPECT_EQ(copies.newest.hdr_offset, kHdrSize);
  EXPECT_EQ(copies.newest.seqid, seqid + 1);
  EXPECT_THAT(copies.warnings, ElementsAre(HasSubstr("differ in age")));
}

TEST_F(Luks2HeaderTest, TwoDamagedCopiesAreRefused) {
  device_.bytes()[5000] ^= std::byte{1};
  device_.bytes()[kHdrSize + 5000] ^= std::byte{1};
  EXPECT_THAT(ThrownText<CorruptImage>([&] { Read(); }),
              testing::AllOf(HasSubstr("disk.img"), HasSubstr("both copies"),
                             HasSubstr("byte 448")));
}

TEST_F(Luks2HeaderTest, ACopyThatNamesAnotherPlaceIsNotBelieved) {
  StoreNumber(Copy(0), 256, 8, 4096);  // hdr_offset
  Seal(0);
  const Luks2Copies copies = Read();
  EXPECT_EQ(copies.newest.hdr_offset, kHdrSize);
  EXPECT_THAT(copies.warnings,
              ElementsAre(HasSubstr("hdr_offset (byte 256) is 4096")));
}

TEST_F(Luks2HeaderTest, HeaderSizesOutsideTheFormatAreRefused) {
  for (const uint64_t size :
       {uint64_t{0}, uint64_t{8192}, uint64_t{16385}, uint64_t{24576},
        uint64_t{8} << 20, ~uint64_t{0}}) {
    StoreNumber(Copy(0), 8, 8, size);
    EXPECT_THAT(Read().warnings, ElementsAre(HasSubstr("hdr_size (byte 8)")))
        << size;
  }
}

TEST_F(Luks2HeaderTest, AFileCutAnywhereInTheHeaderIsRefused) {
  const Bytes whole = device_.bytes();
  for (const size_t size :
       {size_t{592}, size_t{4095}, size_t{4096}, size_t{16383}}) {
    MemoryDevice cut(
        Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)));
    EXPECT_THROW(ReadLuks2Copies(cut, 0, cut.size(), "disk.img"), CorruptImage)
        << size;
  }
  // The first copy alone is enough to be read.
  MemoryDevice first(
      Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(kHdrSize)));
  EXPECT_THAT(ReadLuks2Copies(first, 0, first.size(), "disk.img").warnings,
              ElementsAre(HasSubstr("cut off at byte 16384")));
}

}  // namespace
}  // namespace pellucid::luks
