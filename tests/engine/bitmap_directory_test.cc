#include "engine/qcow2/bitmap_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/memory_device.h"
#include "tests/engine/thrown_text.h"

namespace pellucid::qcow2 {
namespace {

using testing::HasSubstr;

constexpr uint64_t kDirectory = 8192;

// A header that names two bitmaps, and the directory with them.
class BitmapDirectoryTest : public testing::Test {
 protected:
  BitmapDirectoryTest() : file_(Bytes(16384)) {
    header_.cluster_bits = 12;
    header_.autoclear_features = kBitmapsConsistent;
    header_.bitmaps_extension.resize(24);
    Extend(0, 4, 2);
    Extend(8, 8, 64);
    Extend(16, 8, kDirectory);
    for (const uint64_t entry : {kDirectory, kDirectory + 32}) {
      StoreNumber(file_.bytes(), entry, 8, 4096);
      StoreNumber(file_.bytes(), entry + 8, 4, 7);
      StoreNumber(file_.bytes(), entry + 18, 2, 5);  // Bytes of its name.
    }
  }

  void Extend(uint64_t at, unsigned width, uint64_t value) {
    StoreNumber(header_.bitmaps_extension, at, width, value);
  }
  BitmapDirectory Read() {
    return ReadBitmapDirectory(file_, "disk.qcow2", header_);
  }
  std::string Corrupt() {
    return ThrownText<CorruptImage>([&] { Read(); });
  }

  MemoryDevice file_;
  Header header_;
};

TEST_F(BitmapDirectoryTest, EveryEntryIsRead) {
  const BitmapDirectory directory = Read();
  ASSERT_EQ(directory.entries.size(), 2U);
  EXPECT_EQ(directory.entries[1].entry_offset, kDirectory + 32);
  EXPECT_EQ(directory.entries[1].bitmap_table_offset, 4096U);
  EXPECT_EQ(directory.entries[1].bitmap_table_size, 7U);
}

TEST_F(BitmapDirectoryTest, NothingIsReadThatTheAutoclearBitDoesNotVouchFor) {
  header_.autoclear_features = 0;
  EXPECT_TRUE(Read().entries.empty());
  EXPECT_EQ(file_.reads(), 0U);
}

TEST_F(BitmapDirectoryTest, LimitsAreCheckedBeforeAnythingIsRead) {
  Extend(0, 4, 65536);
  EXPECT_THAT(Corrupt(), HasSubstr("nb_bitmaps is 65536, not within 1 to"));
  Extend(0, 4, 0);
  EXPECT_THAT(Corrupt(), HasSubstr("nb_bitmaps is 0"));
  Extend(0, 4, 65535);
  Extend(8, 8, (64 << 20) + 1);
  EXPECT_THAT(Corrupt(), HasSubstr("bitmap_directory_size is 67108865, above"));
  // At the limit it is the file that is too short.
  Extend(8, 8, 64 << 20);
  EXPECT_THAT(Corrupt(), HasSubstr("end behind the 16384-byte file"));
  header_.bitmaps_extension.resize(23);
  EXPECT_THAT(Corrupt(), HasSubstr("is 23 bytes long"));
  EXPECT_EQ(file_.reads(), 0U);
}

TEST_F(BitmapDirectoryTest, MustBeAlignedAndInsideTheFile) {
  for (const uint64_t offset : {uint64_t{0}, kDirectory + 8}) {
    Extend(16, 8, offset);
    EXPECT_THAT(Corrupt(), HasSubstr("not a multiple of the 4096-byte"));
  }
  for (const uint64_t offset : {uint64_t{16384}, UINT64_MAX - 4095}) {
    Extend(16, 8, offset);
    EXPECT_THAT(Corrupt(), HasSubstr("end behind the 16384-byte file"));
  }
}

TEST_F(BitmapDirectoryTest, EntriesEndInsideTheDirectory) {
  Extend(0, 4, 3);
  EXPECT_THAT(Corrupt(), HasSubstr("bitmap 2 (byte 8256) begins behind"));
  Extend(0, 4, 2);
  StoreNumber(file_.bytes(), kDirectory + 20, 4, UINT32_MAX);
  EXPECT_THAT(Corrupt(), HasSubstr("bitmap 0 (byte 8192) ends behind"));
}

}  // namespace
}  // namespace pellucid::qcow2
