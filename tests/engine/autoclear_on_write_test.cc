#include "engine/autoclear_on_write.h"

#include <gtest/gtest.h>

#include <vector>

#include "engine/big_endian.h"
#include "tests/engine/recording_device.h"

namespace pellucid {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kAutoclearByte = 88;

qcow2::Header HeaderWith(uint64_t autoclear_features) {
  qcow2::Header header;
  header.version = 3;
  header.autoclear_features = autoclear_features;
  return header;
}

uint64_t FieldOf(const RecordingDevice& device) {
  return LoadBigEndian<uint64_t>(device.bytes(), kAutoclearByte);
}

class AutoclearOnWriteTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kBits = 0x8000'0000'0000'0027;

  static Bytes Content() {
    Bytes content(4096);
    StoreBigEndian(content, kAutoclearByte, kBits);
    return content;
  }

  RecordingDevice file_{Content()};
};

TEST_F(AutoclearOnWriteTest, UnknownBitsAreDurablyGoneBeforeTheFirstWrite) {
  AutoclearOnWrite guarded(file_, HeaderWith(kBits));
  guarded.Write(1024, Bytes(100, std::byte{1}));
  guarded.Write(2048, Bytes(100, std::byte{2}));
  guarded.Flush();
  const auto& events = file_.events();
  ASSERT_EQ(events.size(), 5U);
  EXPECT_EQ(events[0].offset, kAutoclearByte);
  EXPECT_EQ(events[0].written.size(), 8U);
  EXPECT_TRUE(events[1].written.empty()) << "no flush behind the field";
  EXPECT_EQ(events[2].offset, 1024U);
  EXPECT_EQ(events[3].offset, 2048U);
  // Bitmaps are consistent, the data file is raw: still true.
  EXPECT_EQ(FieldOf(file_), 3U);
}

TEST_F(AutoclearOnWriteTest, ZeroesAreAWriteAsWell) {
  AutoclearOnWrite guarded(file_, HeaderWith(kBits));
  guarded.WriteZeroes(1024, 512, ZeroMode::kKeepSpace);
  EXPECT_EQ(FieldOf(file_), 3U);
}

TEST_F(AutoclearOnWriteTest, ReadersAndKnownBitsChangeNothing) {
  AutoclearOnWrite reader(file_, HeaderWith(kBits));
  Bytes out(512);
  reader.Read(0, out);
  reader.Flush();
  EXPECT_EQ(FieldOf(file_), kBits);
  file_.Forget();
  AutoclearOnWrite writer(file_, HeaderWith(3));
  writer.Write(1024, out);
  ASSERT_EQ(file_.events().size(), 1U);
  EXPECT_EQ(file_.events()[0].offset, 1024U);
}

}  // namespace
}  // namespace pellucid
