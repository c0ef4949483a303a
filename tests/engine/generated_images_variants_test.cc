// Single features of qcow2 in images that the machine's QEMU makes here.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/errors.h"
#include "engine/open_image.h"
#include "tests/engine/opened_image_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"

namespace pellucid {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMiB = 1 << 20;

class ImageFeatureTest : public ::testing::Test {
 protected:
  QemuImage Image(const std::string& name, uint64_t virtual_size,
                  const std::vector<std::string>& more_options = {}) {
    QemuImage image;
    image.name = name;
    image.encryption = "none";
    image.virtual_size = virtual_size;
    image.more_options = more_options;
    return image;
  }

  void Scatter(const QemuImage& image, int count = 40) {
    images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                              image.cluster_size, count,
                                              image.virtual_size));
  }

  void ExpectReadsAsQemu(const std::string& name) {
    const Bytes expected = images_.Content(name);
    const auto device = images_.Open(name);
    const Bytes content = ReadAll(*device, 100003);
    ASSERT_EQ(FirstDifference(content, expected), "");
    CheckExtents(*device, content);
    CheckRandomReads(*device, expected, 200, 1);
  }

  // Data that compresses, but not to nothing.
  fs::path CompressibleFile(uint64_t size) {
    Bytes content = Noise(size, 5);
    for (size_t i = 0; i < content.size(); ++i) {
      if (i / 700 % 3 != 0) content[i] = static_cast<std::byte>(i / 900);
    }
    const fs::path path = images_.path("compressible.raw");
    WriteHostFile(path, content);
    return path;
  }

  QemuImages images_;
};

class RefcountWidthTest : public ImageFeatureTest,
                          public ::testing::WithParamInterface<int> {};

TEST_P(RefcountWidthTest, DoesNotMatterToTheContent) {
  QemuImage image = Image("image.qcow2", 3 * kMiB,
                          {fmt::format("refcount_bits={}", GetParam())});
  image.encryption = "luks";
  images_.Create(image);
  Scatter(image);
  ExpectReadsAsQemu(image.name);
  EXPECT_EQ(DescribeImage(images_.options(image.name)).qcow2->refcount_bits,
            static_cast<unsigned>(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Bits, RefcountWidthTest,
                         ::testing::Values(1, 2, 4, 8, 32, 64));

struct Compression {
  std::string type;
  uint64_t cluster_size;
};

void PrintTo(const Compression& compression, std::ostream* out) {
  *out << compression.type << ", " << compression.cluster_size;
}

class CompressedImageTest : public ImageFeatureTest,
                            public ::testing::WithParamInterface<Compression> {
};

TEST_P(CompressedImageTest, IsUnpacked) {
  const auto& [type, cluster_size] = GetParam();
  const fs::path source = CompressibleFile(5 * kMiB + 512);
  const fs::path image = images_.path("compressed.qcow2");
  RunTool(
      {"qemu-img", "convert", "-c", "-O", "qcow2", "-o",
       fmt::format("cluster_size={},compression_type={}", cluster_size, type),
       source, image});
  const Bytes expected = ReadHostFile(source);
  const std::string check =
      RunTool({"qemu-img", "check", "--output=json", image});
  ASSERT_GT(nlohmann::json::parse(check).at("compressed-clusters"), 0);
  OpenOptions options;
  options.image = image;
  const auto device = OpenDevice(options);
  const Bytes content = ReadAll(*device, 100003);
  ASSERT_EQ(FirstDifference(content, expected), "");
  CheckExtents(*device, content);
  CheckRandomReads(*device, expected, 100, 1);
  EXPECT_EQ(DescribeImage(options).qcow2->compression, type);
}

TEST_P(CompressedImageTest, MixesWithPlainClustersWrittenLater) {
  const auto& [type, cluster_size] = GetParam();
  const fs::path image = images_.path("compressed.qcow2");
  RunTool(
      {"qemu-img", "convert", "-c", "-O", "qcow2", "-o",
       fmt::format("cluster_size={},compression_type={}", cluster_size, type),
       CompressibleFile(3 * kMiB), image});
  std::string commands;
  for (const std::string& command :
       ScatteredWrites(images_, 3 * kMiB, cluster_size, 10, 7)) {
    commands += command + "\n";
  }
  RunTool({"qemu-io", "-f", "qcow2", image}, commands);
  const fs::path copy = images_.path("copy.raw");
  RunTool({"qemu-img", "convert", "-O", "raw", image, copy});
  OpenOptions options;
  options.image = image;
  EXPECT_EQ(FirstDifference(ReadAll(*OpenDevice(options)), ReadHostFile(copy)),
            "");
}

INSTANTIATE_TEST_SUITE_P(
    Types, CompressedImageTest,
    ::testing::Values(Compression{"zlib", 512}, Compression{"zlib", 65536},
                      Compression{"zlib", 2 << 20}, Compression{"zstd", 4096},
                      Compression{"zstd", 65536}, Compression{"zstd", 2 << 20}),
    [](const ::testing::TestParamInfo<Compression>& info) {
      return fmt::format("{}_{}", info.param.type, info.param.cluster_size);
    });

class DataFileTest : public ImageFeatureTest,
                     public ::testing::WithParamInterface<std::string> {};

TEST_P(DataFileTest, HoldsTheGuestsData) {
  for (const char* raw : {"off", "on"}) {
    QemuImage image = Image(
        fmt::format("image-{}.qcow2", raw), 3 * kMiB + 512,
        {"data_file=" + images_.path(fmt::format("data-{}", raw)).string(),
         fmt::format("data_file_raw={}", raw)});
    image.encryption = GetParam();
    images_.Create(image);
    Scatter(image);
    ExpectReadsAsQemu(image.name);
    const ImageInfo info = DescribeImage(images_.options(image.name));
    EXPECT_EQ(info.qcow2->data_file_raw, raw == std::string("on"));
  }
}

INSTANTIATE_TEST_SUITE_P(Encryptions, DataFileTest,
                         ::testing::Values("none", "aes", "luks"));

TEST_F(ImageFeatureTest, DataFilesAreRefusedWhereNoNamedFileMayBeOpened) {
  const QemuImage image = Image("image.qcow2", kMiB,
                                {"data_file=" + images_.path("data").string()});
  images_.Create(image);
  OpenOptions options = images_.options(image.name);
  options.allow_backing = false;
  EXPECT_THROW(OpenDevice(options), UsageError);
}

class SnapshotTest : public ImageFeatureTest,
                     public ::testing::WithParamInterface<std::string> {};

TEST_P(SnapshotTest, ShowsWhatTheDiskHeldThen) {
  QemuImage image = Image("image.qcow2", 3 * kMiB);
  image.encryption = GetParam();
  image.cluster_size = 4096;
  images_.Create(image);
  std::vector<Bytes> states;
  for (int i = 0; i < 3; ++i) {
    images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                              image.cluster_size, 25,
                                              static_cast<uint64_t>(i)));
    states.push_back(images_.Content(image.name));
    std::vector<std::string> command = {"qemu-img", "snapshot", "-c",
                                        fmt::format("state {}", i)};
    const std::vector<std::string> open = images_.OpenArguments(image.name);
    command.insert(command.end(), open.begin(), open.end());
    RunTool(command);
  }
  Scatter(image);
  for (size_t i = 0; i < states.size(); ++i) {
    for (const std::string& key :
         {fmt::format("state {}", i), fmt::format("{}", i + 1)}) {
      SCOPED_TRACE(key);
      OpenOptions options = images_.options(image.name);
      options.snapshot = key;
      KnownPassphrases passphrases = images_.passphrases();
      const auto device = OpenImage(options, passphrases).device;
      EXPECT_EQ(FirstDifference(ReadAll(*device), states[i]), "");
    }
  }
  ExpectReadsAsQemu(image.name);
}

INSTANTIATE_TEST_SUITE_P(Encryptions, SnapshotTest,
                         ::testing::Values("none", "aes", "luks"));

TEST_F(ImageFeatureTest, UnknownSnapshotIsAUsageErrorThatListsTheOthers) {
  const QemuImage image = Image("image.qcow2", kMiB);
  images_.Create(image);
  RunTool({"qemu-img", "snapshot", "-c", "monday", images_.path(image.name)});
  OpenOptions options = images_.options(image.name);
  options.snapshot = "tuesday";
  try {
    OpenDevice(options);
    FAIL() << "was opened";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("tuesday"));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("monday"));
  }
}

TEST_F(ImageFeatureTest, ChainOfFiveIsResolved) {
  constexpr uint64_t kClusterSizes[] = {4096, 65536, 512, 2 * kMiB, 16384};
  const char* const kEncryptions[] = {"none", "luks", "aes", "none", "luks"};
  std::string backing;
  for (unsigned i = 0; i < 5; ++i) {
    QemuImage image = Image(fmt::format("layer{}.qcow2", i),
                            2 * kMiB + 512 * (i * 37 % 5 * 100));
    image.cluster_size = kClusterSizes[i];
    image.encryption = kEncryptions[i];
    image.extended_l2 = image.cluster_size == 16384;
    image.backing = backing;
    images_.Create(image);
    images_.Write(image.name, ScatteredWrites(images_, image.virtual_size,
                                              image.cluster_size, 12, i));
    backing = image.name;
  }
  ExpectReadsAsQemu(backing);
}

TEST_F(ImageFeatureTest, ConcurrentReadersSeeTheSameContent) {
  QemuImage base = Image("base.qcow2", 2 * kMiB);
  base.cluster_size = 512;
  base.encryption = "aes";
  QemuImage top = Image("top.qcow2", 2 * kMiB);
  top.encryption = "luks";
  top.cluster_size = 4096;
  top.backing = base.name;
  for (const QemuImage& image : {base, top}) {
    images_.Create(image);
    Scatter(image);
  }
  const Bytes expected = images_.Content(top.name);
  const auto device = images_.Open(top.name);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      CheckRandomReads(*device, expected, 200, i);
      if (i % 2 == 0) CheckExtents(*device, expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ImageFeatureTest, RelativeBackingNameDoesNotDependOnTheCurrentFolder) {
  const QemuImage base = Image("base.qcow2", 2 * kMiB);
  QemuImage top = Image("top.qcow2", 2 * kMiB);
  top.backing = base.name;
  images_.Create(base);
  Scatter(base);
  images_.Create(top);
  const Bytes expected = images_.Content(top.name);
  const fs::path before = fs::current_path();
  fs::create_directory(images_.path("elsewhere"));
  fs::current_path(images_.path("elsewhere"));
  OpenOptions options;
  options.image = "../top.qcow2";
  const Bytes found = ReadAll(*OpenDevice(options));
  fs::current_path(images_.folder());
  options.image = "top.qcow2";
  const Bytes found_beside = ReadAll(*OpenDevice(options));
  fs::current_path(before);
  EXPECT_EQ(FirstDifference(found, expected), "");
  EXPECT_EQ(FirstDifference(found_beside, expected), "");
}

TEST_F(ImageFeatureTest, RawBackingFileEndsWhereItEnds) {
  // No multiple of a sector.
  WriteHostFile(images_.path("base.raw"), Noise(300001, 3));
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F",
           "raw", images_.path("top.qcow2"), "1M"});
  RunTool(
      {"qemu-io", "-c", "write -q -P 7 100 5000", images_.path("top.qcow2")});
  const fs::path copy = images_.path("copy.raw");
  RunTool(
      {"qemu-img", "convert", "-O", "raw", images_.path("top.qcow2"), copy});
  OpenOptions options;
  options.image = images_.path("top.qcow2");
  const auto device = OpenDevice(options);
  const Bytes content = ReadAll(*device, 4099);
  EXPECT_EQ(FirstDifference(content, ReadHostFile(copy)), "");
  EXPECT_GT(CheckExtents(*device, content), 512U << 10);
}

TEST_F(ImageFeatureTest, MetadataPreallocationReadsAsQemuReadsIt) {
  for (const char* how : {"metadata", "falloc", "full"}) {
    QemuImage image = Image(fmt::format("{}.qcow2", how), kMiB + 512,
                            {fmt::format("preallocation={}", how)});
    images_.Create(image);
    ExpectReadsAsQemu(image.name);
    Scatter(image, 5);
    ExpectReadsAsQemu(image.name);
  }
}

// A sanitizer's own memory and pace say nothing about the engine's.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// The memory that this process holds, in bytes.
uint64_t ResidentBytes() {
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  return resident_pages * 4096;
}

TEST_F(ImageFeatureTest, EightTebibytesOpenAtOnceAndStayWithinSmallMemory) {
  constexpr uint64_t kSize = uint64_t{8} << 40;
  const QemuImage image = Image("huge.qcow2", kSize);
  images_.Create(image);
  // An L2 table of 512 MiB each time, so that caching all would show.
  std::vector<std::string> commands;
  std::mt19937_64 random(8);
  for (int i = 0; i < 600; ++i) {
    commands.push_back(fmt::format("write -q -P {} {} 512", 1 + i % 250,
                                   random() % (kSize / 512) * 512));
  }
  images_.Write(image.name, commands);

  const auto start = std::chrono::steady_clock::now();
  const auto device = images_.Open(image.name);
  const auto taken = std::chrono::steady_clock::now() - start;
  if (!kSanitized) {
    EXPECT_LT(taken, std::chrono::milliseconds(100));
  }
  ASSERT_EQ(device->size(), kSize);
  for (const std::string& command : commands) {
    unsigned pattern = 0;
    uint64_t offset = 0;
    ASSERT_EQ(
        std::sscanf(command.c_str(), "write -q -P %u %lu", &pattern, &offset),
        2);
    Bytes sector(512);
    device->Read(offset, sector);
    ASSERT_EQ(sector, Bytes(512, static_cast<std::byte>(pattern))) << command;
  }
  Bytes buffer(4096);
  for (int i = 0; i < 20000; ++i) {
    device->Read(random() % (kSize - buffer.size()), buffer);
  }
  device->Read(kSize - buffer.size(), buffer);
  if (!kSanitized) {
    EXPECT_LT(ResidentBytes(), 64 * kMiB);
  }
}

TEST_F(ImageFeatureTest, WalkOverAnEmptyEightTebibytesIsQuick) {
  const QemuImage image = Image("huge.qcow2", uint64_t{8} << 40);
  images_.Create(image);
  const auto device = images_.Open(image.name);
  const auto start = std::chrono::steady_clock::now();
  uint64_t at = 0;
  while (at < device->size()) {
    const Extent extent = device->ExtentAt(at, device->size() - at);
    ASSERT_TRUE(extent.is_hole);
    at += extent.length;
  }
  EXPECT_EQ(at, device->size());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST_F(ImageFeatureTest, ManySmallL2TablesAreReadThroughABoundedCache) {
  QemuImage image = Image("small.qcow2", 24 * kMiB);
  image.cluster_size = 512;
  images_.Create(image);
  std::vector<std::string> commands;
  for (uint64_t at = 0; at < image.virtual_size; at += 30011) {
    commands.push_back(fmt::format("write -q -P {} {} 700", at % 255 + 1, at));
  }
  commands.pop_back();
  images_.Write(image.name, commands);
  ExpectReadsAsQemu(image.name);
}

}  // namespace
}  // namespace pellucid
