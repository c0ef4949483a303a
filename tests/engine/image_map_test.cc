// The map of an image is that of `qemu-img map`.

#include "engine/image_map.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/engine/qemu_images_fixture.h"

namespace pellucid {
namespace {

using nlohmann::json;

constexpr uint64_t kMiB = 1 << 20;

// Processor time, which sanitizers multiply.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::clock_t kSoon = 20 * CLOCKS_PER_SEC;
#else
constexpr std::clock_t kSoon = CLOCKS_PER_SEC;
#endif

// One line of `qemu-img map --output=json`.
struct Line {
  uint64_t start = 0;
  uint64_t length = 0;
  unsigned depth = 0;
  bool present = false;
  bool zero = false;
  bool data = false;
  std::optional<uint64_t> offset;
  bool operator==(const Line&) const = default;
};

void PrintTo(const Line& line, std::ostream* out) {
  *out << fmt::format("[{} +{}: depth {}{}{}{}{}]", line.start, line.length,
                      line.depth, line.present ? ", present" : "",
                      line.zero ? ", zero" : "", line.data ? ", data" : "",
                      line.offset ? fmt::format(", at {}", *line.offset) : "");
}

// Joins neighbours that say the same.
void Append(std::vector<Line>& lines, const Line& line) {
  if (!lines.empty()) {
    Line& last = lines.back();
    Line next = line;
    next.start = last.start;
    next.length = last.length;
    if (next.offset) *next.offset -= last.length;
    if (next == last) {
      last.length += line.length;
      return;
    }
  }
  lines.push_back(line);
}

std::vector<Line> OurMap(const OpenOptions& options) {
  std::vector<Line> lines;
  ImageMap map(options);
  uint64_t end = 0;
  map.ForEachExtent([&](const MapExtent& extent) {
    EXPECT_EQ(extent.start, end);
    end = extent.start + extent.length;
    const bool data =
        extent.kind == MapKind::kData || extent.kind == MapKind::kCompressed;
    // QEMU does not tell where ciphertext is.
    Append(lines,
           {.start = extent.start,
            .length = extent.length,
            .depth = extent.depth,
            .present = extent.kind != MapKind::kUnallocated,
            .zero = !data,
            .data = data,
            .offset = extent.encrypted ? std::nullopt : extent.host_offset});
  });
  EXPECT_EQ(end, map.size());
  return lines;
}

std::vector<Line> QemuMap(std::vector<std::string> image) {
  image.insert(image.begin(), {"qemu-img", "map", "--output=json"});
  std::vector<Line> lines;
  for (const json& entry : json::parse(RunTool(image))) {
    Line line = {.start = entry["start"],
                 .length = entry["length"],
                 .depth = entry["depth"],
                 .present = entry["present"],
                 // QEMU also asks the host for holes in what is data here.
                 .zero = entry["zero"] && !entry["data"],
                 .data = entry["data"],
                 .offset = {}};
    if (entry.contains("offset")) line.offset = entry["offset"];
    Append(lines, line);
  }
  return lines;
}

std::vector<MapExtent> Extents(const OpenOptions& options) {
  std::vector<MapExtent> extents;
  ImageMap(options).ForEachExtent(
      [&](const MapExtent& extent) { extents.push_back(extent); });
  return extents;
}

class ImageMapVariantTest : public testing::TestWithParam<ImageVariant> {};

TEST_P(ImageMapVariantTest, IsThatOfQemu) {
  QemuImages images;
  MakeVariant(GetParam(), images);
  const std::vector<Line> ours = OurMap(images.options("top.qcow2"));
  EXPECT_THAT(ours, testing::Not(testing::IsEmpty()));
  EXPECT_EQ(ours, QemuMap(images.OpenArguments("top.qcow2")));
}

INSTANTIATE_TEST_SUITE_P(Generated, ImageMapVariantTest,
                         testing::ValuesIn(AllVariants()),
                         [](const auto& variant) {
                           return TestName(variant.param);
                         });

class ImageMapTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_ / name; }

  OpenOptions Options(const std::string& name) const {
    OpenOptions options;
    options.image = Path(name);
    return options;
  }

  void Create(const std::string& name, const std::string& size,
              std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"qemu-img", "create", "-q", "-f", "qcow2", name, size});
    RunTool(more, "", folder_.path());
  }

  void Write(const std::string& name, const std::string& commands) {
    RunTool({"qemu-io", "-f", "qcow2", name}, commands, folder_.path());
  }

  void ExpectQemus(const std::string& name) {
    EXPECT_EQ(OurMap(Options(name)), QemuMap({Path(name)}));
  }

  ScratchFolder folder_;
};

TEST_F(ImageMapTest, CompressedClustersAreDataWithoutAPlace) {
  Create("disk.qcow2", "4M");
  Write("disk.qcow2",
        "write -q -c 0 64k\nwrite -q -c 64k 64k\nwrite -q 1M 64k\n");
  ExpectQemus("disk.qcow2");
  const auto extents = Extents(Options("disk.qcow2"));
  EXPECT_EQ(extents.front().kind, MapKind::kCompressed);
  EXPECT_EQ(extents.front().length, 128u << 10);
  EXPECT_FALSE(extents.front().host_offset);
}

TEST_F(ImageMapTest, ZeroClustersTellThePlaceThatIsKept) {
  Create("disk.qcow2", "4M");
  Write("disk.qcow2",
        "write -q 0 192k\nwrite -q -z 64k 64k\nwrite -q -z 1M 256k\n"
        // Places in another order than the clusters.
        "write -q 3M 64k\nwrite -q 2M 64k\nwrite -q 2112k 64k\n"
        "write -q 2176k 64k\nwrite -q -z 2M 64k\ndiscard -q 2176k 64k\n"
        "write -q 2240k 64k\nwrite -q 2176k 64k\nwrite -q -z 2112k 192k\n");
  ExpectQemus("disk.qcow2");
  const auto extents = Extents(Options("disk.qcow2"));
  EXPECT_EQ(extents.at(1).kind, MapKind::kZero);
  EXPECT_TRUE(extents.at(1).host_offset);
}

TEST_F(ImageMapTest, ChainsOfDifferentSizesAndFormats) {
  WriteHostFile(Path("base.raw"), Noise(3 * kMiB, 1));
  std::filesystem::resize_file(Path("base.raw"), 5 * kMiB);
  Create("low.qcow2", "8M",
         {"-b", "base.raw", "-F", "raw", "-o", "cluster_size=2M"});
  Write("low.qcow2", "write -q 6M 4k\n");
  Create("middle.qcow2", "2M",
         {"-b", "low.qcow2", "-F", "qcow2", "-o", "cluster_size=512"});
  Write("middle.qcow2", "write -q 1000k 5k\nwrite -q -z 100k 1k\n");
  Create("top.qcow2", "10M", {"-b", "middle.qcow2", "-F", "qcow2"});
  Write("top.qcow2", "write -q 512k 64k\n");
  ExpectQemus("low.qcow2");
  ExpectQemus("middle.qcow2");
  ExpectQemus("top.qcow2");
  const ImageMap map(Options("top.qcow2"));
  EXPECT_EQ(map.file(0), Path("top.qcow2"));
  EXPECT_EQ(map.file(3), Path("base.raw"));
}

TEST_F(ImageMapTest, RawImagesHaveTheHolesOfTheirFile) {
  WriteHostFile(Path("disk.raw"), Noise(kMiB, 1));
  std::filesystem::resize_file(Path("disk.raw"), 3 * kMiB);
  EXPECT_EQ(OurMap(Options("disk.raw")),
            QemuMap({"-f", "raw", Path("disk.raw")}));
  EXPECT_EQ(Extents(Options("disk.raw")).size(), 2u);
}

TEST_F(ImageMapTest, ExternalDataFilesHoldTheData) {
  for (const char* options : {"", ",data_file_raw=on", ",extended_l2=on"}) {
    std::filesystem::remove(Path("data"));
    // QEMU looks for relative names in the folder that it was started in.
    Create("disk.qcow2", "4M", {"-o", "data_file=" + Path("data") + options});
    Write("disk.qcow2",
          "write -q 0 64k\nwrite -q 1M 5k\nwrite -q -z 64k 64k\n"
          "write -q -z 1M 64k\n");
    SCOPED_TRACE(options);
    ExpectQemus("disk.qcow2");
    EXPECT_EQ(ImageMap(Options("disk.qcow2")).file(0), Path("data"));
  }
}

TEST_F(ImageMapTest, ALuksBackingFileIsDataWithoutAPlace) {
  RunTool({"qemu-img", "create", "-q", "-f", "luks", "--object",
           "secret,id=s,data=key", "-o", "key-secret=s,iter-time=10",
           Path("base.luks"), "2M"});
  Create("top.qcow2", "3M", {"-u", "-b", "base.luks", "-F", "luks"});
  const std::string options =
      "driver=qcow2,file.filename=" + Path("top.qcow2") +
      ",backing.driver=luks,backing.key-secret=s,backing.file.filename=" +
      Path("base.luks");
  EXPECT_EQ(
      OurMap(Options("top.qcow2")),
      QemuMap({"--object", "secret,id=s,data=key", "--image-opts", options}));
  EXPECT_TRUE(Extents(Options("top.qcow2")).front().encrypted);
}

// Each extent as "LENGTH in KiB" and "s" if shared.
std::string Shared(const OpenOptions& options) {
  std::string text;
  for (const MapExtent& extent : Extents(options)) {
    text += fmt::format("{}{} ", extent.length >> 10, extent.shared ? "s" : "");
  }
  return text;
}

class SharedClustersTest : public ImageMapTest,
                           public testing::WithParamInterface<const char*> {};

TEST_P(SharedClustersTest, AreThoseThatAnotherStateRefersTo) {
  Create("disk.qcow2", "1M", {"-o", GetParam()});
  Write("disk.qcow2",
        "write -q 0 256k\nwrite -q -c 256k 64k\nwrite -q -c 320k 64k\n");
  EXPECT_EQ(Shared(Options("disk.qcow2")), "256 128 640 ");
  RunTool({"qemu-img", "snapshot", "-c", "one", "disk.qcow2"}, "",
          folder_.path());
  EXPECT_EQ(Shared(Options("disk.qcow2")), "256s 128s 640 ");
  Write("disk.qcow2",
        "write -q 64k 64k\nwrite -q 320k 64k\nwrite -q 512k 64k\n");
  const std::string changed = Shared(Options("disk.qcow2"));
  EXPECT_EQ(changed, "64s 64 128s 64s 64 128 64 448 ");
  OpenOptions snapshot = Options("disk.qcow2");
  snapshot.snapshot = "one";
  EXPECT_EQ(Shared(snapshot), "64s 64 128s 64s 64 640 ");
  RunTool({"qemu-img", "snapshot", "-d", "one", "disk.qcow2"}, "",
          folder_.path());
  EXPECT_EQ(Shared(Options("disk.qcow2")), "64 64 128 64 64 128 64 448 ");
}

INSTANTIATE_TEST_SUITE_P(Formats, SharedClustersTest,
                         testing::Values("compat=1.1", "compat=0.10",
                                         "extended_l2=on"));

TEST_F(ImageMapTest, HugeImagesTakeTheTimeOfTheirTables) {
  Create("disk.qcow2", "8T");
  std::string writes;
  for (int i = 0; i < 100; ++i) {
    writes += fmt::format("write -q {}G 4k\n", 80 * i);
  }
  Write("disk.qcow2", writes);
  const std::clock_t begin = std::clock();
  const std::vector<Line> ours = OurMap(Options("disk.qcow2"));
  EXPECT_LT(std::clock() - begin, kSoon);
  EXPECT_EQ(ours, QemuMap({Path("disk.qcow2")}));
  EXPECT_EQ(ours.size(), 200u);
}

// Every cluster of the image above asks the one below, which has large tables.
TEST_F(ImageMapTest, SmallClustersAboveLargeOnesAreLookedAtOnce) {
  Create("base.qcow2", "512G", {"-o", "cluster_size=2M"});
  Write("base.qcow2", "write -q 0 512\n");
  constexpr uint64_t kSize = 100 * kMiB;
  Bytes stripes = Noise(kSize, 1);
  for (size_t i = 0; i < kSize; i += 1024) {
    std::fill_n(stripes.begin() + static_cast<ptrdiff_t>(i), 512, std::byte{0});
  }
  WriteHostFile(Path("stripes"), stripes);
  RunTool({"qemu-img", "convert", "-S", "512", "-f", "raw", "-O", "qcow2", "-o",
           "cluster_size=512", "stripes", "top.qcow2"},
          "", folder_.path());
  RunTool({"qemu-img", "rebase", "-u", "-b", "base.qcow2", "-F", "qcow2",
           "top.qcow2"},
          "", folder_.path());
  const std::clock_t begin = std::clock();
  EXPECT_GT(Extents(Options("top.qcow2")).size(), 190'000u);
  EXPECT_LT(std::clock() - begin, kSoon);
}

TEST_F(ImageMapTest, NothingOfTheImageChanges) {
  Create("disk.qcow2", "1M");
  Write("disk.qcow2", "write -q 0 64k\n");
  const Bytes before = ReadHostFile(Path("disk.qcow2"));
  const auto time = std::filesystem::last_write_time(Path("disk.qcow2"));
  Extents(Options("disk.qcow2"));
  EXPECT_EQ(ReadHostFile(Path("disk.qcow2")), before);
  EXPECT_EQ(std::filesystem::last_write_time(Path("disk.qcow2")), time);
}

TEST_F(ImageMapTest, DamagedEntriesAreNamed) {
  Create("disk.qcow2", "1M");
  Write("disk.qcow2", "write -q 0 64k\n");
  const uint64_t l1 = 3 * 65536;
  Bytes image = ReadHostFile(Path("disk.qcow2"));
  image.at(l1 + 6) = std::byte{0x12};
  WriteHostFile(Path("disk.qcow2"), image);
  EXPECT_THAT(
      [&] { Extents(Options("disk.qcow2")); },
      testing::ThrowsMessage<CorruptImage>(testing::HasSubstr("L1 entry 0")));
}

}  // namespace
}  // namespace pellucid
