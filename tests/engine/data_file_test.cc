// Which external data files are opened for writing: an image from a stranger
// can name any file of the user's.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>

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

constexpr uint64_t kSize = 1 << 20;

class DataFileTest : public ::testing::Test {
 protected:
  DataFileTest() {
    fs::create_directories(folder_ / "vm" / "below");
    fs::create_directories(folder_ / "home");
  }

  // An image whose data file was made as `file` and is called `name` now.
  void Make(const fs::path& file, const std::string& name) {
    fs::remove(image_);
    fs::remove(file);
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
             "data_file_raw=on,data_file=" + file.native(), image_,
             std::to_string(kSize)});
    RunTool({"qemu-img", "amend", "-f", "qcow2", "-o", "data_file=" + name,
             image_});
    WriteHostFile(file, Noise(kSize, 1));
  }

  OpenOptions Options(const fs::path& image) const {
    OpenOptions options;
    options.image = image;
    options.writable = true;
    return options;
  }

  void ExpectWritten(const OpenOptions& options, const fs::path& file) {
    Bytes expected = ReadHostFile(file);
    const Bytes data = Noise(5000, ++seed_);
    std::ranges::copy(data, expected.begin() + 1000);
    KnownPassphrases passphrases;
    const OpenedImage opened = OpenImage(options, passphrases);
    opened.writable->Write(1000, data);
    opened.writable->Flush();
    EXPECT_EQ(FirstDifference(ReadHostFile(file), expected), "");
  }

  // It is read all the same.
  void ExpectOnlyRead(const fs::path& file) {
    OpenOptions options = Options(image_);
    KnownPassphrases passphrases;
    EXPECT_THAT(
        ThrownText<Unsupported>([&] { OpenImage(options, passphrases); }),
        AllOf(HasSubstr("--data-file"), HasSubstr("--read-only")));
    options.writable = false;
    const OpenedImage opened = OpenImage(options, passphrases);
    EXPECT_EQ(FirstDifference(ReadAll(*opened.device), ReadHostFile(file)), "");
  }

  ScratchFolder folder_;
  const fs::path image_ = folder_ / "vm/disk.qcow2";
  uint64_t seed_ = 1;
};

TEST_F(DataFileTest, OneBesideTheImageIsWritten) {
  const fs::path file = folder_ / "vm/disk.data";
  for (const std::string& name :
       {std::string("disk.data"), std::string("./below/../disk.data"),
        std::string("file:disk.data"), file.native()}) {
    SCOPED_TRACE(name);
    Make(file, name);
    ExpectWritten(Options(image_), file);
  }
  // However the image is reached.
  fs::create_symlink(image_, folder_ / "home/link.qcow2");
  ExpectWritten(Options(folder_ / "home/link.qcow2"), file);
  Make(file, "disk.data");
  fs::create_directory_symlink(folder_ / "vm", folder_ / "home/machines");
  ExpectWritten(Options(folder_ / "home/machines/disk.qcow2"), file);
}

TEST_F(DataFileTest, OneElsewhereIsWrittenOnlyIfTheUserNamesIt) {
  const fs::path file = folder_ / "home/file";
  fs::create_symlink(file, folder_ / "vm/link");
  fs::create_directory_symlink(folder_ / "home", folder_ / "vm/folder");
  for (const std::string& name :
       {file.native(), std::string("../home/file"), std::string("link"),
        std::string("folder/file"), "file:" + file.native(),
        R"(json:{"driver":"file",,"filename":")" + file.native() + "\"}"}) {
    SCOPED_TRACE(name);
    Make(file, name);
    ExpectOnlyRead(file);
    OpenOptions options = Options(image_);
    options.data_file = file;
    ExpectWritten(options, file);
  }
}

TEST_F(DataFileTest, OneBelowTheImageOrHiddenIsWrittenOnlyIfTheUserNamesIt) {
  for (const char* name : {"below/file", ".file"}) {
    SCOPED_TRACE(name);
    const fs::path file = folder_ / "vm" / name;
    Make(file, name);
    ExpectOnlyRead(file);
    OpenOptions options = Options(image_);
    options.data_file = file;
    ExpectWritten(options, file);
  }
}

// A name beside the image is enough only if it is that of the file itself.
TEST_F(DataFileTest, AnotherFileOfTheSameNameDoesNotCount) {
  const fs::path file = folder_ / "home/file";
  Make(file, file.native());
  WriteHostFile(folder_ / "vm/file", Noise(kSize, 2));
  ExpectOnlyRead(file);
}

TEST_F(DataFileTest, TheUsersTakesThePlaceOfTheNamedOne) {
  const fs::path moved = folder_ / "home/moved";
  Make(folder_ / "vm/disk.data", "disk.data");
  fs::rename(folder_ / "vm/disk.data", moved);
  OpenOptions options = Options(image_);
  options.data_file = moved;
  options.allow_backing = false;
  ExpectWritten(options, moved);
  EXPECT_FALSE(fs::exists(folder_ / "vm/disk.data"));
}

TEST_F(DataFileTest, AnImageWithoutOneIsRefusedWithOne) {
  WriteHostFile(folder_ / "file", Noise(kSize, 1));
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", image_, "1M"});
  const fs::path raw = folder_ / "vm/disk.raw";
  WriteHostFile(raw, Noise(kSize, 1));
  KnownPassphrases passphrases;
  for (const fs::path& image : {image_, raw}) {
    OpenOptions options = Options(image);
    options.data_file = folder_ / "file";
    EXPECT_THAT(
        ThrownText<UsageError>([&] { OpenImage(options, passphrases); }),
        HasSubstr("no external data file"));
  }
}

}  // namespace
}  // namespace pellucid
