#include "tools/mount_access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/errors.h"
#include "engine/file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid::cli {
namespace {

using fuse::MountAccess;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(DecideAccessTest, WritesWherePossibleUnlessToldOtherwise) {
  const OpenOptions plain;
  EXPECT_EQ(DecideAccess(plain, false, MountAccess::kAsDevice),
            WantedAccess::kReadWriteIfPossible);
  EXPECT_EQ(DecideAccess(plain, true, MountAccess::kAsDevice),
            WantedAccess::kReadOnly);
  EXPECT_EQ(DecideAccess(plain, false, MountAccess::kReadOnly),
            WantedAccess::kReadOnly);
  EXPECT_EQ(DecideAccess(plain, true, MountAccess::kReadOnly),
            WantedAccess::kReadOnly);
  EXPECT_EQ(DecideAccess(plain, false, MountAccess::kReadWrite),
            WantedAccess::kReadWrite);
  EXPECT_THROW(DecideAccess(plain, true, MountAccess::kReadWrite), UsageError);
}

TEST(DecideAccessTest, WhatCannotBeWrittenIsOnlyReadUnlessWritingIsWanted) {
  OpenOptions snapshot;
  snapshot.snapshot = "before";
  OpenOptions ciphertext;
  ciphertext.encryption = Encryption::kNone;
  OpenOptions shared;
  shared.force_share = true;
  for (const OpenOptions& options : {snapshot, ciphertext, shared}) {
    EXPECT_EQ(DecideAccess(options, false, MountAccess::kAsDevice),
              WantedAccess::kReadOnly);
    // Opening it says why not.
    EXPECT_EQ(DecideAccess(options, false, MountAccess::kReadWrite),
              WantedAccess::kReadWrite);
  }
}

// Has nothing, and notes whether it was asked.
class NoPassphrases : public PassphraseSource {
 public:
  std::optional<crypto::SecretBytes> Get(std::string_view, unsigned) override {
    ++asked;
    return std::nullopt;
  }
  void Accepted() override {}

  int asked = 0;
};

class OpenWithAccessTest : public testing::Test {
 protected:
  OpenedImage Open(WantedAccess wanted) {
    OpenOptions options;
    options.image = image_;
    return OpenWithAccess(
        options, wanted, passphrases_,
        [&](const std::string& text) { warnings_.push_back(text); });
  }

  // A qcow2 image that is marked as corrupt.
  void MakeCorrupt() {
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", image_, "1M"});
    Bytes content = ReadHostFile(image_);
    StoreNumber(content, 72, 8, 2);
    WriteHostFile(image_, content);
  }

  ScratchFolder folder_;
  const std::filesystem::path image_ = folder_ / "image";
  NoPassphrases passphrases_;
  std::vector<std::string> warnings_;
};

TEST_F(OpenWithAccessTest, ImageIsWritableUnlessItIsOnlyToBeRead) {
  WriteHostFile(image_, Noise(4096, 1));
  EXPECT_NE(Open(WantedAccess::kReadWriteIfPossible).writable, nullptr);
  EXPECT_NE(Open(WantedAccess::kReadWrite).writable, nullptr);
  EXPECT_EQ(Open(WantedAccess::kReadOnly).writable, nullptr);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(OpenWithAccessTest, CorruptImageIsOnlyReadWithAWarning) {
  MakeCorrupt();
  EXPECT_EQ(Open(WantedAccess::kReadWriteIfPossible).writable, nullptr);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("marked as corrupt")));
  EXPECT_THROW(Open(WantedAccess::kReadWrite), CorruptImage);
  EXPECT_EQ(Open(WantedAccess::kReadOnly).writable, nullptr);
  EXPECT_EQ(warnings_.size(), 1U);
}

// The image may be a stranger's, and the file the user's.
TEST_F(OpenWithAccessTest, ImageWhoseDataFileIsElsewhereIsOnlyRead) {
  const std::filesystem::path settings = folder_ / ".settings";
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
           "data_file=" + settings.native(), image_, "1M"});
  EXPECT_EQ(Open(WantedAccess::kReadWriteIfPossible).writable, nullptr);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("--data-file")));
  // mount(8) says -o rw by itself.
  EXPECT_THROW(Open(WantedAccess::kReadWrite), Unsupported);
}

TEST_F(OpenWithAccessTest, LockedImageIsNotQuietlyOnlyRead) {
  WriteHostFile(image_, Noise(4096, 1));
  const auto reader = FileDevice::Open(image_, FileDevice::Sharing::kExclusive);
  EXPECT_THROW(Open(WantedAccess::kReadWriteIfPossible), ImageLocked);
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_NO_THROW(Open(WantedAccess::kReadOnly));
}

TEST_F(OpenWithAccessTest, ErrorThatConcernsReadersAsWellIsTheError) {
  EXPECT_THROW(Open(WantedAccess::kReadWriteIfPossible), IoError);
  WriteHostFile(image_, "QFI\xfb and then nothing");
  EXPECT_THROW(Open(WantedAccess::kReadWriteIfPossible), Unsupported);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(OpenWithAccessTest, PassphraseIsAskedForOnce) {
  const std::filesystem::path key = folder_ / "key";
  WriteHostFile(key, "key");
  WriteHostFile(image_, Bytes(4 << 20));
  RunTool({"cryptsetup", "luksFormat", "-q", "--type", "luks1",
           "--pbkdf-force-iterations", "1000", "--key-file", key, image_});
  EXPECT_THROW(Open(WantedAccess::kReadWriteIfPossible), WrongPassphrase);
  EXPECT_EQ(passphrases_.asked, 1);
}

}  // namespace
}  // namespace pellucid::cli
