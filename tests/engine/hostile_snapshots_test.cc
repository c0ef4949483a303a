// Internal snapshots with one fault each: whoever asks for the snapshot is told
// where it is, and the active state is none the worse.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/open_image.h"
#include "tests/engine/hostile_images_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

using ::testing::HasSubstr;

class HostileSnapshotTest : public HostileImageTest {
 protected:
  void SetUp() override {
    Make(PlainImage());
    RunTool(
        {"qemu-img", "snapshot", "-c", "friday", images_.path("disk.qcow2")});
    image_ = ReadHostFile(images_.path("disk.qcow2"));
    entry_ = LoadNumber(image_, 64, 8);
  }

  // Replaces a number of the snapshot's table entry.
  void Damage(uint64_t byte, unsigned width, uint64_t value) {
    Bytes damaged = image_;
    StoreNumber(damaged, entry_ + byte, width, value);
    Put("disk.qcow2", damaged);
  }

  // The text of the error on opening the snapshot and reading all of it; none
  // fails the test.
  std::string SnapshotError() {
    OpenOptions options = images_.options("disk.qcow2");
    options.snapshot = "friday";
    try {
      ReadAll(*OpenDevice(options));
    } catch (const CorruptImage& error) {
      return error.what();
    }
    ADD_FAILURE() << "was opened and read";
    return "";
  }

  Bytes image_;
  uint64_t entry_ = 0;  // Of the snapshot, in the file.
};

TEST_F(HostileSnapshotTest, L1TableMustBeAlignedAndInTheFile) {
  const Bytes expected = Attempt("disk.qcow2").content;
  for (const uint64_t offset :
       {uint64_t{0}, uint64_t{0x12345}, uint64_t{1} << 40, ~uint64_t{0xffff}}) {
    SCOPED_TRACE(offset);
    Damage(0, 8, offset);
    const std::string error = SnapshotError();
    EXPECT_THAT(error, HasSubstr("l1_table_offset"));
    EXPECT_THAT(error, HasSubstr(fmt::format("byte {}", entry_)));
    EXPECT_EQ(FirstDifference(Attempt("disk.qcow2").content, expected), "");
  }
}

TEST_F(HostileSnapshotTest, L1TableMustCoverTheDiskAndBeBounded) {
  for (const uint64_t entries : {0U, (32U << 20) / 8 + 1, 0xffffffffU}) {
    SCOPED_TRACE(entries);
    Damage(8, 4, entries);
    const std::string error = SnapshotError();
    EXPECT_THAT(error, HasSubstr("l1_size"));
    EXPECT_THAT(error, HasSubstr(fmt::format("byte {}", entry_ + 8)));
  }
}

TEST_F(HostileSnapshotTest, DiskSizeMustFitTheL1Table) {
  constexpr uint64_t kExtraDataSize = 36;
  constexpr uint64_t kDiskSize = 40 + 8;
  ASSERT_GE(LoadNumber(image_, entry_ + kExtraDataSize, 4), 16U);
  for (const uint64_t size : {uint64_t{1} << 40, ~uint64_t{0}}) {
    SCOPED_TRACE(size);
    Damage(kDiskSize, 8, size);
    SnapshotError();
  }
}

TEST_F(HostileSnapshotTest, TableThatEndsEarlyIsRefused) {
  Bytes damaged = image_;
  StoreNumber(damaged, 60, 4, 60000);
  Put("disk.qcow2", damaged);
  ExpectRefused("disk.qcow2", ExitCode::kCorruptImage, {"snapshot"});
}

TEST_F(HostileSnapshotTest, LongNamesAndMuchExtraDataAreBounded) {
  Damage(36, 4, 0xffffffff);
  ExpectRefused("disk.qcow2", ExitCode::kCorruptImage, {"extra data"});
  Damage(12, 4, 0xffffffff);  // Both lengths, of the id and of the name.
  const Outcome outcome = Attempt("disk.qcow2");
  EXPECT_EQ(outcome.error.has_value(), !outcome.text.empty());
}

}  // namespace
}  // namespace pellucid
