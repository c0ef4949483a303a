// What OpenImage() makes of images that are odd rather than damaged, and what
// it reports besides the device.

#include "engine/open_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <string>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/thrown_text.h"

namespace pellucid {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class OpenImageTest : public testing::Test {
 protected:
  OpenImageTest() { WriteHostFile(folder_ / "key", "secret"); }

  void QemuImg(std::vector<std::string> words) {
    words.insert(words.begin(), "qemu-img");
    RunTool(words, "", folder_.path());
  }

  OpenedImage Open(const std::string& name, const std::string& header = "") {
    OpenOptions options;
    options.image = folder_ / name;
    if (!header.empty()) options.header = folder_ / header;
    KnownPassphrases passphrases({"secret"});
    return OpenImage(options, passphrases);
  }

  // A raw LUKS1 volume of 2 MiB of header and 64 KiB of payload.
  Bytes MakeLuks1(const std::string& name) {
    WriteHostFile(folder_ / name, Bytes((2 << 20) + (64 << 10)));
    RunTool({"cryptsetup", "--batch-mode", "luksFormat", "--type", "luks1",
             "--pbkdf-force-iterations", "1000", "--key-file",
             (folder_ / "key").string(), (folder_ / name).string()});
    return ReadHostFile(folder_ / name);
  }

  HostFileId IdOf(const std::string& name) {
    struct stat stat;
    EXPECT_EQ(::stat((folder_ / name).c_str(), &stat), 0);
    return HostFileId::Of(stat);
  }

  ScratchFolder folder_;
};

TEST_F(OpenImageTest, AnUnknownLuksVersionIsNotTakenForPlaintext) {
  Bytes volume = MakeLuks1("disk.img");
  for (const unsigned version : {0U, 3U, 0xffffU}) {
    StoreNumber(volume, 6, 2, version);
    WriteHostFile(folder_ / "disk.img", volume);
    EXPECT_THAT(ThrownText<Unsupported>([&] { Open("disk.img"); }),
                AllOf(HasSubstr("disk.img: LUKS header field version (byte 6)"),
                      HasSubstr("1 and 2 are supported")));
  }
}

TEST_F(OpenImageTest, AFileWithoutAHeaderIsNoDetachedHeader) {
  WriteHostFile(folder_ / "payload.raw", Bytes(65536));
  WriteHostFile(folder_ / "not-a-header", Bytes(65536));
  EXPECT_THAT(
      ThrownText<CorruptImage>([&] { Open("payload.raw", "not-a-header"); }),
      HasSubstr("not-a-header: there is no LUKS header at byte 0"));
}

TEST_F(OpenImageTest, BytesBehindTheLastWholeSectorAreAnnounced) {
  const Bytes volume = MakeLuks1("disk.img");
  WriteHostFile(folder_ / "cut.img",
                std::span(volume).first(volume.size() - 200));
  const OpenedImage opened = Open("cut.img");
  EXPECT_EQ(opened.device->size(), Open("disk.img").device->size() - 512);
  EXPECT_THAT(opened.warnings,
              ElementsAre(HasSubstr("cut.img: its last 312 bytes")));
}

TEST_F(OpenImageTest, AnEmptyBackingFileIsZerosAnEmptyImageAMistake) {
  WriteHostFile(folder_ / "empty.raw", "");
  QemuImg({"create", "-q", "-f", "qcow2", "-F", "raw", "-b", "empty.raw", "-u",
           "top.qcow2", "1M"});
  const OpenedImage opened = Open("top.qcow2");
  Bytes content(1 << 20, std::byte{1});
  opened.device->Read(0, content);
  EXPECT_EQ(content, Bytes(1 << 20));
  EXPECT_THAT(ThrownText<CorruptImage>([&] { Open("empty.raw"); }),
              HasSubstr("empty.raw: is empty"));
}

TEST_F(OpenImageTest, ABackingFormatThatIsGuessedIsAnnounced) {
  QemuImg({"create", "-q", "-f", "qcow2", "base.qcow2", "1M"});
  QemuImg({"create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
           "-o", "compat=0.10", "top.qcow2"});
  EXPECT_THAT(Open("top.qcow2").warnings, IsEmpty());
  // The extension's type becomes one that nobody knows.
  Bytes top = ReadHostFile(folder_ / "top.qcow2");
  ASSERT_EQ(LoadNumber(top, 72, 4), 0xe2792acaU);
  StoreNumber(top, 72, 4, 0x01020304);
  WriteHostFile(folder_ / "top.qcow2", top);
  EXPECT_THAT(Open("top.qcow2").warnings,
              ElementsAre(HasSubstr("does not say the format")));
}

TEST_F(OpenImageTest, ABackingFileThatCannotBeOneIsTheImagesFault) {
  QemuImg({"create", "-q", "-f", "qcow2", "-F", "raw", "-b",
           folder_.path().string(), "-u", "top.qcow2", "1M"});
  EXPECT_THAT(ThrownText<CorruptImage>([&] { Open("top.qcow2"); }),
              AllOf(HasSubstr("top.qcow2: its backing file"),
                    HasSubstr("is a directory")));
}

TEST_F(OpenImageTest, AClusterElsewhereInAnExternalDataFileIsRefused) {
  QemuImg({"create", "-q", "-f", "qcow2", "-o",
           "data_file=data.raw,preallocation=metadata", "disk.qcow2", "1M"});
  EXPECT_NO_THROW(Open("disk.qcow2").device->ExtentAt(0, 1 << 20));
  Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  const uint64_t l1 = LoadNumber(image, 40, 8);
  const uint64_t l2 = LoadNumber(image, l1, 8) & 0x00fffffffffffe00;
  StoreNumber(image, l2, 8, uint64_t{1} << 63 | 0x10000);
  WriteHostFile(folder_ / "disk.qcow2", image);
  Bytes sector(512);
  EXPECT_THAT(ThrownText<CorruptImage>(
                  [&] { Open("disk.qcow2").device->Read(0, sector); }),
              AllOf(HasSubstr("L2 entry (byte " + std::to_string(l2)),
                    HasSubstr("can only be at that offset")));
}

TEST_F(OpenImageTest, EveryFileOfTheStackIsReported) {
  WriteHostFile(folder_ / "base.raw", Bytes(1 << 20));
  QemuImg({"create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", "-o",
           "data_file=data.raw", "top.qcow2", "1M"});
  const Bytes volume = MakeLuks1("luks.img");
  WriteHostFile(folder_ / "header", std::span(volume).first(2 << 20));
  // A header backup keeps the payload's offset, which is too far here.
  WriteHostFile(folder_ / "base.raw", Bytes(4 << 20));
  QemuImg({"resize", "-q", "top.qcow2", "4M"});
  const OpenedImage opened = Open("top.qcow2", "header");
  EXPECT_EQ(opened.files.size(), 4u);
  for (const char* name : {"top.qcow2", "data.raw", "base.raw", "header"}) {
    EXPECT_THAT(opened.files, Contains(IdOf(name))) << name;
  }
}

// Two layers of very different cluster sizes, each with more entries than a
// walk may look at for every extent of the other.
TEST_F(OpenImageTest, AWalkOverUnlikeLayersEndsSoon) {
  QemuImg({"create", "-q", "-f", "qcow2", "-o", "cluster_size=512",
           "fine.qcow2", "64G"});
  QemuImg({"create", "-q", "-f", "qcow2", "-o", "cluster_size=2M",
           "coarse.qcow2", "64G"});
  for (const auto& [top, base] :
       {std::pair("fine", "coarse"), std::pair("coarse", "fine")}) {
    const std::string name = std::string(top) + "-over.qcow2";
    QemuImg({"create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
             std::string(base) + ".qcow2", "-o",
             std::string("cluster_size=") +
                 (std::string(top) == "fine" ? "512" : "2M"),
             name});
    std::string writes;
    for (int i = 0; i < 200; ++i) {
      writes += "write -z " + std::to_string(i * 320) + "M 64k\n";
    }
    RunTool({"qemu-io", "-f", "qcow2", name}, writes, folder_.path());
    const OpenedImage opened = Open(name);
    const auto begin = std::chrono::steady_clock::now();
    const uint64_t size = opened.device->size();
    for (uint64_t at = 0; at < size;) {
      const Extent extent = opened.device->ExtentAt(at, size - at);
      EXPECT_TRUE(extent.is_hole);
      at += extent.length;
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin,
              std::chrono::seconds(20))
        << name;
  }
}

}  // namespace
}  // namespace pellucid
