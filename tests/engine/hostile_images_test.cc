// Images with one fault each. The error must say which file, which field and
// where it stands; the names are those of the qcow2 specification.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "engine/open_image.h"
#include "tests/engine/hostile_images_fixture.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr uint32_t kFullDiskEncryption = 0x0537be77;
constexpr uint32_t kFeatureNames = 0x6803f857;

// A number in the header that is to be replaced.
struct Field {
  uint64_t byte;
  unsigned width;
  uint64_t value;
};

struct HeaderFault {
  std::string name;
  std::vector<Field> fields;
  ExitCode kind;
  std::string named;  // The field and its place.
};

void PrintTo(const HeaderFault& fault, std::ostream* out) {
  *out << fault.name;
}

class HeaderFaultTest : public HostileImageTest,
                        public ::testing::WithParamInterface<HeaderFault> {};

TEST_P(HeaderFaultTest, IsNamedInTheError) {
  Bytes image = Make(PlainImage());
  for (const Field& field : GetParam().fields) {
    StoreNumber(image, field.byte, field.width, field.value);
  }
  Put("disk.qcow2", image);
  ExpectRefused("disk.qcow2", GetParam().kind, {GetParam().named});
  // Without a passphrase as well, which `info` has not got.
  EXPECT_THROW(DescribeImage(images_.options("disk.qcow2")), Error);
}

constexpr ExitCode kCorrupt = ExitCode::kCorruptImage;
constexpr ExitCode kUnsupported = ExitCode::kUnsupported;

const HeaderFault kHeaderFaults[] = {
    {"Version1", {{4, 4, 1}}, kUnsupported, "version (byte 4)"},
    {"Version4", {{4, 4, 4}}, kUnsupported, "version (byte 4)"},
    {"ClusterBits8", {{20, 4, 8}}, kCorrupt, "cluster_bits (byte 20)"},
    {"ClusterBits22", {{20, 4, 22}}, kCorrupt, "cluster_bits (byte 20)"},
    {"ClusterBitsHuge",
     {{20, 4, 0xffffffff}},
     kCorrupt,
     "cluster_bits (byte 20)"},
    {"ExtendedL2InSmallClusters",
     {{20, 4, 13}, {72, 8, 16}},
     kCorrupt,
     "cluster_bits (byte 20)"},
    {"UnknownCryptMethod",
     {{32, 4, 3}},
     kUnsupported,
     "crypt_method (byte 32)"},
    {"LuksWithoutItsExtension",
     {{32, 4, 2}},
     kCorrupt,
     "crypt_method (byte 32)"},
    {"L1TableMisaligned",
     {{40, 8, 0x12345}},
     kCorrupt,
     "header field l1_table_offset (byte 40) is 0x12345"},
    {"L1TableBehindTheEnd",
     {{40, 8, uint64_t{1} << 40}},
     kCorrupt,
     "l1_table_offset (byte 40)"},
    {"L1TableAtTheEndOfNumbers",
     {{40, 8, 0xffff'ffff'ffff'0000}},
     kCorrupt,
     "l1_table_offset (byte 40)"},
    {"L1TableAbove32MiB",
     {{36, 4, (32 << 20) / 8 + 1}},
     kCorrupt,
     "l1_size (byte 36)"},
    {"L1TableTooSmallForTheDisk",
     {{24, 8, uint64_t{1} << 40}},
     kCorrupt,
     "l1_size (byte 36)"},
    {"NoL1Table", {{36, 4, 0}}, kCorrupt, "l1_size (byte 36)"},
    {"RefcountTableMisaligned",
     {{48, 8, 0x10200}},
     kCorrupt,
     "refcount_table_offset (byte 48)"},
    {"RefcountTableBehindTheEnd",
     {{48, 8, uint64_t{1} << 40}},
     kCorrupt,
     "refcount_table_offset (byte 48)"},
    {"RefcountTableAbove8MiB",
     {{56, 4, 129}},
     kCorrupt,
     "refcount_table_clusters (byte 56)"},
    {"NoRefcountTable",
     {{56, 4, 0}},
     kCorrupt,
     "refcount_table_clusters (byte 56)"},
    {"TooManySnapshots",
     {{60, 4, 65537}, {64, 8, 65536}},
     kCorrupt,
     "nb_snapshots (byte 60)"},
    {"SnapshotTableMisaligned",
     {{60, 4, 1}, {64, 8, 0x10008}},
     kCorrupt,
     "snapshots_offset (byte 64)"},
    {"SnapshotTableBehindTheEnd",
     {{60, 4, 1}, {64, 8, uint64_t{1} << 40}},
     kCorrupt,
     "snapshots_offset (byte 64)"},
    {"UnknownIncompatibleBit",
     {{72, 8, 0x20}},
     kUnsupported,
     "incompatible_features (byte 72)"},
    {"LastIncompatibleBit",
     {{72, 8, uint64_t{1} << 63}},
     kUnsupported,
     "bit 63"},
    {"RefcountOrder7", {{96, 4, 7}}, kCorrupt, "refcount_order (byte 96)"},
    {"HeaderLength103", {{100, 4, 103}}, kCorrupt, "header_length (byte 100)"},
    {"HeaderPastTheCluster",
     {{100, 4, 65537}},
     kCorrupt,
     "header_length (byte 100)"},
    {"CompressionTypeWithoutItsBit",
     {{104, 1, 1}},
     kCorrupt,
     "compression_type (byte 104)"},
    {"CompressionBitWithoutItsType",
     {{72, 8, 8}},
     kCorrupt,
     "compression_type (byte 104)"},
    {"UnknownCompressionType",
     {{72, 8, 8}, {104, 1, 2}},
     kUnsupported,
     "compression_type (byte 104)"},
    {"BackingNameAbove1023Bytes",
     {{8, 8, 1024}, {16, 4, 1024}},
     kCorrupt,
     "backing_file_size (byte 16)"},
    {"BackingNameBehindTheCluster",
     {{8, 8, 65530}, {16, 4, 10}},
     kCorrupt,
     "backing_file_offset (byte 8)"},
    {"BackingNameFarAway",
     {{8, 8, uint64_t{1} << 62}, {16, 4, 10}},
     kCorrupt,
     "backing_file_offset (byte 8)"},
};

INSTANTIATE_TEST_SUITE_P(Fields, HeaderFaultTest,
                         ::testing::ValuesIn(kHeaderFaults),
                         [](const ::testing::TestParamInfo<HeaderFault>& info) {
                           return info.param.name;
                         });

class HostileStructureTest : public HostileImageTest {};

TEST_F(HostileStructureTest, WrongMagicIsNoQcow2) {
  Bytes image = Make(PlainImage());
  StoreNumber(image, 0, 4, 0x514649fc);
  Put("disk.qcow2", image);
  OpenOptions options = images_.options("disk.qcow2");
  options.format = ContainerFormat::kQcow2;
  try {
    OpenDevice(options);
    FAIL() << "was opened";
  } catch (const CorruptImage& error) {
    EXPECT_THAT(error.what(), HasSubstr("magic (byte 0)"));
  }
}

TEST_F(HostileStructureTest, UnknownFeatureIsQuotedFromTheNameTable) {
  Bytes image = Make(PlainImage());
  const uint64_t names = ExtensionOffset(image, kFeatureNames) + 8;
  ASSERT_EQ(LoadNumber(image, names, 2), 0U);  // Incompatible, bit 0.
  image.at(names + 1) = std::byte{40};
  StoreNumber(image, 72, 8, uint64_t{1} << 40);
  Put("disk.qcow2", image);
  ExpectRefused("disk.qcow2", kUnsupported, {"dirty bit", "bit 40"});
}

TEST_F(HostileStructureTest, FeaturesThatDoNotMatterToAReaderAreIgnored) {
  const Bytes image = Make(PlainImage());
  const Bytes expected = Attempt("disk.qcow2").content;
  // Dirty, corrupt, an unknown compatible and an unknown autoclear bit.
  for (const Field& field : {Field{72, 8, 1}, Field{72, 8, 2},
                             Field{80, 8, 0x400}, Field{88, 8, 0x400}}) {
    SCOPED_TRACE(field.byte);
    Bytes changed = image;
    StoreNumber(changed, field.byte, field.width, field.value);
    Put("disk.qcow2", changed);
    const Outcome outcome = Attempt("disk.qcow2");
    EXPECT_EQ(outcome.text, "");
    EXPECT_EQ(FirstDifference(outcome.content, expected), "");
  }
}

TEST_F(HostileStructureTest, LuksExtensionAndCryptMethodMustAgree) {
  QemuImage plain = PlainImage();
  plain.encryption = "luks";
  const Bytes image = Make(plain);
  for (const uint64_t method : {0U, 1U}) {
    Bytes changed = image;
    StoreNumber(changed, 32, 4, method);
    Put("disk.qcow2", changed);
    ExpectRefused("disk.qcow2", kCorrupt, {"crypt_method (byte 32)"});
  }
  const uint64_t extension = ExtensionOffset(image, kFullDiskEncryption);
  const Field faults[] = {{extension + 4, 4, 8},           // Its length.
                          {extension + 4, 4, 24},          //
                          {extension + 4, 4, 0xfffffff0},  //
                          {extension + 8, 8, 0x10200},     // Header's offset.
                          {extension + 8, 8, uint64_t{1} << 50},
                          {extension + 16, 8, uint64_t{1} << 50}};  // Length.
  for (const Field& field : faults) {
    SCOPED_TRACE(fmt::format("{} at {}", field.value, field.byte));
    Bytes changed = image;
    StoreNumber(changed, field.byte, field.width, field.value);
    Put("disk.qcow2", changed);
    ExpectRefused("disk.qcow2", kCorrupt, {"(byte "});
  }
}

TEST_F(HostileStructureTest, L1EntryIsNamedWithItsPlace) {
  const Bytes image = Make(PlainImage());
  const uint64_t entry = L1TableOffset(image);
  for (const uint64_t value :
       {L2TableOffset(image) + 512, uint64_t{1} << 50,
        uint64_t{image.size()} / 65536 * 65536 + 65536}) {
    SCOPED_TRACE(value);
    Bytes changed = image;
    StoreNumber(changed, entry, 8, value | uint64_t{1} << 63);
    Put("disk.qcow2", changed);
    ExpectRefused("disk.qcow2", kCorrupt,
                  {fmt::format("L1 entry 0 (byte {})", entry)});
  }
}

TEST_F(HostileStructureTest, MisalignedL2EntryIsNamedWithItsPlace) {
  Bytes image = Make(PlainImage());
  const uint64_t entry = FirstL2Entry(image);
  StoreNumber(image, entry, 8, LoadNumber(image, entry, 8) + 512);
  Put("disk.qcow2", image);
  ExpectRefused("disk.qcow2", kCorrupt,
                {fmt::format("L2 entry (byte {})", entry)});
}

TEST_F(HostileStructureTest, ContradictorySubclustersAreCorrupt) {
  QemuImage extended = PlainImage();
  extended.extended_l2 = true;
  Bytes image = Make(extended);
  const uint64_t entry = FirstL2Entry(image);
  StoreNumber(image, entry + 8, 8, 0x0000'0001'0000'0001);
  Put("disk.qcow2", image);
  ExpectRefused("disk.qcow2", kCorrupt,
                {fmt::format("L2 entry (byte {})", entry)});
}

TEST_F(HostileStructureTest, DataBehindTheEndOfTheFileReadsAsZeros) {
  Bytes image = Make(PlainImage());
  const Bytes expected = Attempt("disk.qcow2").content;
  const uint64_t entry = FirstL2Entry(image);
  // Two clusters share one that only begins in the file.
  image.resize(image.size() + 1000, std::byte{7});
  const uint64_t last = (image.size() - 1) / 65536 * 65536;
  StoreNumber(image, entry, 8, last | uint64_t{1} << 63);
  Put("disk.qcow2", image);
  const Outcome outcome = Attempt("disk.qcow2");
  ASSERT_EQ(outcome.text, "");
  EXPECT_EQ(FirstDifference(outcome.content, images_.Content("disk.qcow2")),
            "");
}

class CompressedFaultTest : public HostileStructureTest,
                            public ::testing::WithParamInterface<std::string> {
 protected:
  // A compressed image; gives its bytes.
  Bytes MakeCompressed(const std::string& name, uint64_t cluster_size) {
    Bytes content(2 << 20);
    for (size_t i = 0; i < content.size(); ++i) {
      content[i] = static_cast<std::byte>(i / 300 % 251);
    }
    WriteHostFile(images_.path("content"), content);
    RunTool({"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
             fmt::format("cluster_size={},compression_type={}", cluster_size,
                         GetParam()),
             images_.path("content"), images_.path(name)});
    return ReadHostFile(images_.path(name));
  }

  // The place of the compressed data that an L2 entry refers to.
  static uint64_t DataOffset(const Bytes& image, uint64_t entry) {
    const unsigned bits =
        62 - (static_cast<unsigned>(LoadNumber(image, 20, 4)) - 8);
    return LoadNumber(image, entry, 8) & ((uint64_t{1} << bits) - 1);
  }
};

TEST_P(CompressedFaultTest, GarbageIsCorrupt) {
  Bytes image = MakeCompressed("packed.qcow2", 65536);
  const uint64_t data = DataOffset(image, FirstL2Entry(image));
  const Bytes noise = Noise(200, 9);
  std::copy(noise.begin(), noise.end(),
            image.begin() + static_cast<std::ptrdiff_t>(data));
  Put("packed.qcow2", image);
  ExpectRefused("packed.qcow2", kCorrupt, {"compressed"});
}

TEST_P(CompressedFaultTest, DataBehindTheEndIsCorrupt) {
  Bytes image = MakeCompressed("packed.qcow2", 65536);
  const uint64_t entry = FirstL2Entry(image);
  const uint64_t value = LoadNumber(image, entry, 8);
  StoreNumber(image, entry, 8, value | uint64_t{1} << 40);
  Put("packed.qcow2", image);
  ExpectRefused("packed.qcow2", kCorrupt,
                {fmt::format("L2 entry (byte {})", entry)});
}

TEST_P(CompressedFaultTest, ClusterThatUnpacksToFarTooMuchDoesNoHarm) {
  // The data of a 2 MiB cluster in the place of one of 4 KiB.
  const Bytes large = MakeCompressed("large.qcow2", 2 << 20);
  Bytes image = MakeCompressed("packed.qcow2", 4096);
  const uint64_t from = DataOffset(large, FirstL2Entry(large));
  const uint64_t entry = FirstL2Entry(image);
  const uint64_t end = (image.size() + 511) / 512 * 512;
  image.resize(end);
  image.insert(image.end(), large.begin() + static_cast<std::ptrdiff_t>(from),
               large.end());
  // All the sectors that an entry can say.
  StoreNumber(image, entry, 8, uint64_t{1} << 62 | uint64_t{15} << 58 | end);
  Put("packed.qcow2", image);
  const Outcome outcome = Attempt("packed.qcow2");
  if (outcome.error) {
    EXPECT_EQ(*outcome.error, kCorrupt) << outcome.text;
  } else {
    EXPECT_EQ(outcome.content.size(), 2U << 20);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CompressedFaultTest,
                         ::testing::Values("zlib", "zstd"));

class StrangeFileTest : public HostileImageTest {};

TEST_F(StrangeFileTest, FolderIsRefused) {
  fs::create_directory(images_.path("folder"));
  const Outcome outcome = Attempt("folder");
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_THAT(outcome.text, HasSubstr("folder"));
}

TEST_F(StrangeFileTest, FifoIsRefusedAtOnce) {
  ASSERT_EQ(mkfifo(images_.path("fifo").c_str(), 0600), 0);
  const auto start = std::chrono::steady_clock::now();
  const Outcome outcome = Attempt("fifo");
  ASSERT_TRUE(outcome.error.has_value());
  EXPECT_THAT(outcome.text, HasSubstr("fifo"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

TEST_F(StrangeFileTest, CharacterDeviceIsRefused) {
  fs::create_symlink("/dev/zero", images_.path("zeros"));
  EXPECT_TRUE(Attempt("zeros").error.has_value());
}

TEST_F(StrangeFileTest, EmptyFileIsRefused) {
  Put("empty", {});
  ExpectRefused("empty", kCorrupt, {"empty"});
}

TEST_F(StrangeFileTest, MissingFileIsAnIoError) {
  ExpectRefused("nowhere.qcow2", ExitCode::kIoError, {"No such file"});
}

TEST_F(StrangeFileTest, SymbolicLinkToItselfIsAnIoError) {
  fs::create_symlink("link", images_.path("link"));
  ExpectRefused("link", ExitCode::kIoError, {"link"});
}

TEST_F(StrangeFileTest, MissingBackingFileIsNamedWithTheImage) {
  QemuImage image = PlainImage();
  image.backing = "gone.qcow2";
  images_.Create(image);
  ExpectRefused(image.name, ExitCode::kIoError, {"gone.qcow2", "backing"});
  const ImageInfo info = DescribeImage(images_.options(image.name));
  EXPECT_THAT(info.backing_error, HasSubstr("gone.qcow2"));
  EXPECT_EQ(info.qcow2->backing_file, "gone.qcow2");
}

TEST_F(StrangeFileTest, MissingDataFileIsNamedWithTheImage) {
  QemuImage image = PlainImage();
  image.more_options = {"data_file=" + images_.path("gone.data").string()};
  images_.Create(image);
  fs::remove(images_.path("gone.data"));
  ExpectRefused(image.name, ExitCode::kIoError, {"gone.data", "data"});
}

TEST_F(StrangeFileTest, BackingLoopsAreRefused) {
  const auto create = [&](const std::string& name, const std::string& backing) {
    QemuImage image = PlainImage(name);
    image.backing = backing;
    images_.Create(image);
  };
  create("self.qcow2", "self.qcow2");
  create("a.qcow2", "b.qcow2");
  create("b.qcow2", "c.qcow2");
  create("c.qcow2", "./a.qcow2");
  // A loop further down, which the first image is no part of.
  create("above.qcow2", "b.qcow2");
  for (const char* name : {"self.qcow2", "a.qcow2", "above.qcow2"}) {
    SCOPED_TRACE(name);
    const Outcome outcome = Attempt(name);
    ASSERT_EQ(outcome.error, kCorrupt) << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("loop"));
    const ImageInfo info = DescribeImage(images_.options(name));
    const ImageInfo* lowest = &info;
    while (lowest->backing) lowest = lowest->backing.get();
    EXPECT_THAT(lowest->backing_error, HasSubstr("loop"));
  }
}

TEST_F(StrangeFileTest, ChainsAreRefusedBeforeTheyExhaustTheStack) {
  constexpr int kMaxLength = 200;
  const auto name = [](int i) { return fmt::format("{:05}.qcow2", i); };
  images_.Create(PlainImage(name(0)));
  QemuImage image = PlainImage(name(1));
  image.backing = name(0);
  images_.Create(image);
  // The others are the second with other names in them, of the same length.
  Bytes content = ReadHostFile(images_.path(name(1)));
  const auto name_at = static_cast<std::ptrdiff_t>(LoadNumber(content, 8, 8));
  for (int i = 2; i <= kMaxLength; ++i) {
    const std::string backing = name(i - 1);
    std::ranges::copy(std::as_bytes(std::span(backing)),
                      content.begin() + name_at);
    Put(name(i), content);
  }
  const auto open = [&](int i) {
    OpenOptions options;
    options.image = images_.path(name(i));
    return ReadAll(*OpenDevice(options));
  };
  EXPECT_EQ(FirstDifference(open(kMaxLength - 1), Bytes(3 << 20)), "");
  EXPECT_THROW(open(kMaxLength), Unsupported);
}

TEST_F(StrangeFileTest, BackingFilesAreRefusedWhereNoNamedFileMayBeOpened) {
  QemuImage image = PlainImage();
  image.backing = "base.qcow2";
  images_.Create(PlainImage("base.qcow2"));
  images_.Create(image);
  OpenOptions options = images_.options(image.name);
  options.allow_backing = false;
  try {
    OpenDevice(options);
    FAIL() << "was opened";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("base.qcow2"));
  }
}

TEST_F(StrangeFileTest, NetworkNamesAreUnsupported) {
  for (const char* name :
       {"nbd://localhost/disk", "ssh://host/disk",
        "json:{\"driver\":\"nbd\",\"host\":\"localhost\"}"}) {
    SCOPED_TRACE(name);
    QemuImage image = PlainImage("net.qcow2");
    RunTool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F",
             "raw", images_.path(image.name), "1M"});
    ExpectRefused(image.name, kUnsupported, {"local"});
  }
}

}  // namespace
}  // namespace pellucid
