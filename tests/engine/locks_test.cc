// The locks that tell QEMU what we do and us what QEMU does; QEMU's programs
// are the other side.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
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
using ::testing::HasSubstr;
using ::testing::Not;

class LocksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", base_, "1M"});
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base_, "-F",
             "qcow2", top_});
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
             "data_file=" + data_.string(), with_data_, "1M"});
    RunTool({"qemu-img", "create", "-q", "-f", "raw", raw_, "1M"});
  }

  // A program of QEMU's that keeps `image` open.
  static std::vector<std::string> Holder(const fs::path& image,
                                         const std::string& format,
                                         bool writable) {
    std::vector<std::string> command = {"qemu-io", "-f", format};
    if (!writable) command.push_back("-r");
    command.push_back(image);
    return command;
  }

  static OpenOptions Options(const fs::path& image, bool force_share = false) {
    OpenOptions options;
    options.image = image;
    options.force_share = force_share;
    return options;
  }

  // The text of the refusal; a test that gets none fails.
  static std::string LockedError(const fs::path& image) {
    try {
      OpenDevice(Options(image));
    } catch (const ImageLocked& error) {
      return error.what();
    }
    ADD_FAILURE() << image << " was opened";
    return "";
  }

  static ProgramResult TryToWrite(const fs::path& image,
                                  const std::string& format) {
    return RunProgram({"qemu-io", "-f", format, "-c", "write 0 512", image});
  }

  ScratchFolder folder_;
  const fs::path base_ = folder_ / "base.qcow2";
  const fs::path top_ = folder_ / "top.qcow2";
  const fs::path with_data_ = folder_ / "with-data.qcow2";
  const fs::path data_ = folder_ / "data";
  const fs::path raw_ = folder_ / "disk.raw";
};

constexpr char kPrompt[] = "qemu-io>";

TEST_F(LocksTest, ImageOpenForWritingIsRefusedWithItsHolder) {
  for (const auto& [image, format] :
       {std::pair(base_, "qcow2"), std::pair(raw_, "raw")}) {
    SCOPED_TRACE(image);
    const BackgroundProgram holder(Holder(image, format, true), kPrompt);
    const std::string error = LockedError(image);
    EXPECT_THAT(error, HasSubstr(image.native()));
    EXPECT_THAT(error, HasSubstr("qemu-io"));
    EXPECT_THAT(error, HasSubstr(std::to_string(holder.pid())));
    EXPECT_THAT(error, HasSubstr("--force-share"));
  }
}

TEST_F(LocksTest, StorageDaemonIsNamedToo) {
  const BackgroundProgram holder(
      {"qemu-storage-daemon", "--blockdev",
       fmt::format(
           "driver=qcow2,node-name=disk,file.driver=file,file.filename={}",
           base_.native()),
       "--nbd-server",
       fmt::format("addr.type=unix,addr.path={}", (folder_ / "nbd").native()),
       "--export", "type=nbd,id=e,node-name=disk,writable=on", "--chardev",
       "stdio,id=c", "--monitor", "chardev=c"},
      "QMP");
  const std::string error = LockedError(base_);
  EXPECT_THAT(error, HasSubstr("qemu-storage"));
  EXPECT_THAT(error, HasSubstr(std::to_string(holder.pid())));
}

TEST_F(LocksTest, ForceShareReadsWhatAnotherWrites) {
  const BackgroundProgram holder(Holder(top_, "qcow2", true), kPrompt);
  const auto device = OpenDevice(Options(top_, true));
  EXPECT_EQ(FirstDifference(ReadAll(*device), Bytes(1 << 20)), "");
}

// QEMU's readers of raw images mind no writer: not even its own.
TEST_F(LocksTest, WriterKeepsOthersOut) {
  OpenOptions options = Options(raw_);
  options.writable = true;
  {
    const auto device = OpenDevice(options);
    EXPECT_NE(TryToWrite(raw_, "raw").exit_code, 0);
    EXPECT_THAT(LockedError(raw_), HasSubstr("open for writing"));
    EXPECT_THROW(OpenDevice(options), ImageLocked);
  }
  EXPECT_EQ(TryToWrite(raw_, "raw").exit_code, 0);
  EXPECT_NO_THROW(OpenDevice(options));
}

TEST_F(LocksTest, ReaderInTheWayOfAWriterCanBeJoined) {
  const auto refusal = [](const fs::path& image) {
    OpenOptions options = Options(image);
    options.writable = true;
    return ThrownText<ImageLocked>([&] { OpenDevice(options); });
  };
  {
    // QEMU's readers of raw images mind nobody.
    const BackgroundProgram holder(Holder(base_, "qcow2", false), kPrompt);
    EXPECT_THAT(refusal(base_), HasSubstr("--read-only"));
    EXPECT_NO_THROW(OpenDevice(Options(base_)));
  }
  {
    const auto reader = OpenDevice(Options(raw_));
    EXPECT_THAT(refusal(raw_), HasSubstr("--read-only"));
  }
  const BackgroundProgram holder(Holder(raw_, "raw", true), kPrompt);
  EXPECT_THAT(refusal(raw_), Not(HasSubstr("--read-only")));
}

TEST_F(LocksTest, ReadersCoexist) {
  const BackgroundProgram holder(Holder(top_, "qcow2", false), kPrompt);
  const auto first = OpenDevice(Options(top_));
  const auto second = OpenDevice(Options(top_));
  const auto third = OpenDevice(Options(base_));
  EXPECT_EQ(ReadAll(*first), ReadAll(*second));
  RunTool({"qemu-img", "info", top_});
  RunTool({"qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", top_});
}

TEST_F(LocksTest, WriterIsKeptOutWhileWeRead) {
  for (const auto& [image, format] :
       {std::pair(base_, "qcow2"), std::pair(raw_, "raw")}) {
    SCOPED_TRACE(image);
    {
      const auto device = OpenDevice(Options(image));
      const ProgramResult result = TryToWrite(image, format);
      EXPECT_NE(result.exit_code, 0);
      EXPECT_THAT(result.out + result.err, HasSubstr("lock"));
    }
    const ProgramResult result = TryToWrite(image, format);
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
}

TEST_F(LocksTest, ForcedReaderKeepsNobodyOut) {
  const auto device = OpenDevice(Options(base_, true));
  const ProgramResult result = TryToWrite(base_, "qcow2");
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST_F(LocksTest, BackingFilesAreLockedAsWell) {
  {
    const auto device = OpenDevice(Options(top_));
    EXPECT_NE(TryToWrite(base_, "qcow2").exit_code, 0);
  }
  const BackgroundProgram holder(Holder(base_, "qcow2", true), kPrompt);
  EXPECT_THAT(LockedError(top_), HasSubstr(base_.native()));
}

TEST_F(LocksTest, DataFilesAreLockedAsWell) {
  {
    const auto device = OpenDevice(Options(with_data_));
    EXPECT_NE(TryToWrite(data_, "raw").exit_code, 0);
  }
  const BackgroundProgram holder(Holder(data_, "raw", true), kPrompt);
  EXPECT_THAT(LockedError(with_data_), HasSubstr(data_.native()));
}

TEST_F(LocksTest, RefusedOpenLeavesNoLockBehind) {
  {
    const BackgroundProgram holder(Holder(base_, "qcow2", true), kPrompt);
    LockedError(top_);
    const ProgramResult result = TryToWrite(top_, "qcow2");
    // Its backing file is open for writing, which QEMU refuses; not the image.
    EXPECT_THAT(result.out + result.err,
                Not(HasSubstr("\"" + top_.native() + "\"")));
  }
  EXPECT_EQ(TryToWrite(top_, "qcow2").exit_code, 0);
  EXPECT_EQ(TryToWrite(base_, "qcow2").exit_code, 0);
}

TEST_F(LocksTest, DescriptionIsRefusedWhileAnotherWrites) {
  // `info` is as careful as an open: it reads metadata that may be changing.
  const BackgroundProgram holder(Holder(base_, "qcow2", true), kPrompt);
  EXPECT_THROW(DescribeImage(Options(base_)), ImageLocked);
  EXPECT_EQ(DescribeImage(Options(base_, true)).virtual_size, 1U << 20);
}

}  // namespace
}  // namespace pellucid
