#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/encrypted_image_fixture.h"
#include "tests/tools/terminal_fixture.h"
#include "tools/block_map.h"
#include "tools/map_svg.h"
#include "tools/map_text.h"

namespace pellucid {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr uint64_t kMiB = 1 << 20;

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

class MapCommandTest : public EncryptedImageTest {
 protected:
  // A chain of two with something of everything.
  void MakeChain() {
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "64M"},
            "", folder_.path());
    RunTool({"qemu-io", "-f", "qcow2", "base.qcow2"}, "write -q 0 16M\n",
            folder_.path());
    RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2",
             "-F", "qcow2", "top.qcow2"},
            "", folder_.path());
    RunTool({"qemu-io", "-f", "qcow2", "top.qcow2"},
            "write -q 8M 8M\nwrite -q -z 32M 4M\nwrite -q -c 48M 64k\n",
            folder_.path());
    RunTool({"qemu-img", "snapshot", "-c", "one", "top.qcow2"}, "",
            folder_.path());
    RunTool({"qemu-io", "-f", "qcow2", "top.qcow2"},
            "write -q 12M 4M\nwrite -q -c 49M 64k\n", folder_.path());
  }

  // What there is of each kind in top.qcow2.
  const std::map<std::string, uint64_t> kChainTotals = {
      {"unallocated", 64 * kMiB - 20 * kMiB - 128 * 1024},
      {"zero", 4 * kMiB},
      {"data", 4 * kMiB},
      {"data shared with a snapshot", 4 * kMiB + 64 * 1024},
      {"compressed", 64 * 1024},
      {"in the backing file", 8 * kMiB}};

  std::string MustMap(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {"map"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const ProgramResult result = RunPellucid(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, IsEmpty());
    return result.out;
  }

  std::string OnTerminal(const std::string& before) {
    ProgramOnTerminal program(
        {"sh", "-c", before + " exec \"$0\" map --blocks top.qcow2",
         PELLUCID_PROGRAM},
        folder_.path());
    EXPECT_EQ(program.WaitForEnd(), 0) << program.screen();
    return program.screen();
  }
};

TEST_F(MapCommandTest, JsonIsThatOfQemuImgAndMore) {
  MakeChain();
  const std::string out = MustMap({"--json", "top.qcow2"});
  const json ours = json::parse(out);
  const json theirs = json::parse(RunTool(
      {"qemu-img", "map", "--output=json", "top.qcow2"}, "", folder_.path()));
  // Theirs does not tell what is shared: it may have fewer, longer extents.
  size_t i = 0;
  for (const json& extent : ours) {
    const json& whole = theirs.at(i);
    for (const auto& [field, value] : whole.items()) {
      if (field != "start" && field != "length" && field != "offset") {
        EXPECT_EQ(extent[field], value) << field << " in " << extent;
      }
    }
    const uint64_t start = extent["start"];
    const uint64_t end = start + extent["length"].get<uint64_t>();
    EXPECT_GE(start, whole["start"].get<uint64_t>());
    EXPECT_EQ(extent.contains("offset"), whole.contains("offset"));
    if (whole.contains("offset")) {
      EXPECT_EQ(
          extent["offset"].get<uint64_t>() - start,
          whole["offset"].get<uint64_t>() - whole["start"].get<uint64_t>());
      EXPECT_EQ(extent["filename"],
                extent["depth"] == 0 ? "top.qcow2" : "base.qcow2");
    }
    if (end ==
        whole["start"].get<uint64_t>() + whole["length"].get<uint64_t>()) {
      ++i;
    }
  }
  EXPECT_EQ(i, theirs.size());
  // One extent a line, as QEMU has it.
  EXPECT_EQ(Lines(out).size(), ours.size());
}

TEST_F(MapCommandTest, NeedsNoPassphrase) {
  MakeImage("disk.qcow2");
  const Bytes before = ReadHostFile(folder_ / "disk.qcow2");
  const json map = json::parse(MustMap({"--json", "disk.qcow2"}));
  ASSERT_EQ(map.size(), 4u);
  const json& data = map[1];
  EXPECT_EQ(data["start"], kDataOffset);
  EXPECT_EQ(data["length"], kDataLength);
  EXPECT_EQ(data["encrypted"], true);
  // What is there is not what `offset` promises to readers of QEMU's map.
  EXPECT_FALSE(data.contains("offset"));
  EXPECT_EQ(data["filename"], "disk.qcow2");
  // It is the same ciphertext that the file has there.
  const uint64_t offset = data["ciphertext_offset"];
  RunPellucid({"export", "--encryption", "none", "--offset",
               std::to_string(kDataOffset), "--length", "4096", "disk.qcow2",
               "part"});
  const Bytes part = ReadHostFile(folder_ / "part");
  ASSERT_EQ(part.size(), 4096u);
  EXPECT_TRUE(std::equal(part.begin(), part.end(),
                         before.begin() + static_cast<ptrdiff_t>(offset)));
  EXPECT_EQ(ReadHostFile(folder_ / "disk.qcow2"), before);
}

TEST_F(MapCommandTest, TheTableHasALineForEachExtent) {
  MakeChain();
  const std::vector<std::string> lines =
      Lines(MustMap({"--table", "top.qcow2"}));
  const json map = json::parse(MustMap({"--json", "top.qcow2"}));
  ASSERT_EQ(lines.size(), map.size() + 1);
  EXPECT_THAT(lines[0], testing::StartsWith("Start "));
  EXPECT_THAT(lines[1],
              testing::MatchesRegex("0x0 +0x800000 +1  data +0x[0-9a-f]+ +"
                                    "base\\.qcow2"));
  EXPECT_THAT(lines[2], testing::MatchesRegex(
                            "0x800000 +0x400000 +0  data, shared +0x[0-9a-f]+ "
                            "+top\\.qcow2"));
  EXPECT_THAT(lines[5], testing::MatchesRegex("0x2000000 +0x400000 +0  zero"));
  // Without options the map of blocks follows.
  const std::string both = MustMap({"top.qcow2"});
  EXPECT_THAT(both, testing::StartsWith(MustMap({"--table", "top.qcow2"})));
  EXPECT_THAT(both, testing::EndsWith(MustMap({"--blocks", "top.qcow2"})));
}

TEST_F(MapCommandTest, BlocksInAPipeArePlain) {
  MakeChain();
  const std::string out = MustMap({"--blocks", "top.qcow2"});
  EXPECT_EQ(out.find('\x1b'), std::string::npos);
  const std::vector<std::string> lines = Lines(out);
  // 64 columns of 64 KiB.
  EXPECT_EQ(lines[0], "   0 bytes  " + std::string(64, '1'));
  EXPECT_EQ(lines[2], "     8 MiB  " + std::string(64, 's'));
  EXPECT_EQ(lines[3], "    12 MiB  " + std::string(64, '#'));
  EXPECT_EQ(lines[8], "    32 MiB  " + std::string(64, '0'));
  EXPECT_EQ(lines[12], "    48 MiB  s" + std::string(15, '.') + "c" +
                           std::string(47, '.'));
  EXPECT_THAT(out, HasSubstr("64 KiB for each character\n"));
  EXPECT_TRUE(
      std::regex_search(out, std::regex("\n +# data +4 MiB +6\\.2 %\n")));
}

TEST_F(MapCommandTest, BlocksFitTheTerminalAndHaveColours) {
  MakeChain();
  for (const unsigned columns : {200U, 80U, 40U, 10U}) {
    const std::string screen =
        OnTerminal(fmt::format("TERM=xterm stty cols {};", columns));
    EXPECT_THAT(screen, HasSubstr("\x1b[30;44m#"));
    const std::string plain =
        std::regex_replace(screen, std::regex("\x1b\\[[0-9;]*m"), "");
    const std::string row = Lines(plain).at(0);
    EXPECT_LE(row.size(), std::max(columns, 14U)) << row;
    if (columns >= 40) {
      EXPECT_GE(row.size(), columns / 2) << row;
    }
  }
}

TEST_F(MapCommandTest, ColoursAreNotForThoseWhoDoNotWantThem) {
  MakeChain();
  EXPECT_THAT(OnTerminal("NO_COLOR=1"), Not(HasSubstr("\x1b[")));
  EXPECT_THAT(OnTerminal("TERM=dumb"), Not(HasSubstr("\x1b[")));
  EXPECT_THAT(OnTerminal("TERM=xterm NO_COLOR="), HasSubstr("\x1b["));
}

// What Python's parser finds in the picture: "KIND BYTES" for each kind, and
// the bytes of the whole.
std::vector<std::string> ParseSvg(const std::filesystem::path& file) {
  return Lines(RunTool({"python3", "-c",
                        "import sys, xml.etree.ElementTree as tree\n"
                        "root = tree.parse(sys.argv[1]).getroot()\n"
                        "assert root.tag == '{http://www.w3.org/2000/svg}svg'\n"
                        "print('all', root.get('data-bytes'))\n"
                        "for g in root.iter('{http://www.w3.org/2000/svg}g'):\n"
                        "  print(g.get('data-kind'), g.get('data-bytes'))\n",
                        file}));
}

TEST_F(MapCommandTest, TheSvgIsXmlWithTheRightTotals) {
  MakeChain();
  EXPECT_THAT(MustMap({"--svg", "map.svg", "top.qcow2"}), IsEmpty());
  std::vector<std::string> expected = {"all 67108864"};
  for (const auto& [kind, bytes] : kChainTotals) {
    expected.push_back(fmt::format("{} {}", kind, bytes));
  }
  EXPECT_THAT(ParseSvg(folder_ / "map.svg"),
              testing::UnorderedElementsAreArray(expected));
}

TEST_F(MapCommandTest, TheSvgOverwritesNothingUnasked) {
  MakeImage("disk.qcow2", "compat=1.1");
  WriteHostFile(folder_ / "map.svg", "mine");
  EXPECT_EQ(RunPellucid({"map", "--svg", "map.svg", "disk.qcow2"}).exit_code,
            2);
  EXPECT_EQ(ReadHostFile(folder_ / "map.svg").size(), 4u);
  MustMap({"--force", "--svg", "map.svg", "disk.qcow2"});
  EXPECT_EQ(ParseSvg(folder_ / "map.svg").at(0), "all 67108864");
  // Not even when asked.
  EXPECT_EQ(RunPellucid({"map", "--force", "--svg", "disk.qcow2", "disk.qcow2"})
                .exit_code,
            6);
  MustMap({"disk.qcow2"});
}

TEST_F(MapCommandTest, SnapshotsAndRawImages) {
  MakeChain();
  const json snapshot =
      json::parse(MustMap({"--json", "--snapshot", "one", "top.qcow2"}));
  EXPECT_EQ(snapshot[2]["start"], 12 * kMiB);
  EXPECT_EQ(snapshot[2]["shared"], false);
  WriteHostFile(folder_ / "disk.raw", std::string(70000, 'x'));
  const json raw = json::parse(MustMap({"--json", "disk.raw"}));
  ASSERT_EQ(raw.size(), 1u);
  EXPECT_EQ(raw[0]["length"], 70000);
  EXPECT_EQ(raw[0]["offset"], 0);
}

TEST_F(MapCommandTest, JsonStandsAlone) {
  for (const char* other : {"--table", "--blocks", "--svg=x"}) {
    const ProgramResult result = RunPellucid({"map", "--json", other, "a"});
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err, HasSubstr("--json"));
  }
}

TEST(MapSvg, AnyFileNameIsWellFormed) {
  const ScratchFolder folder;
  for (const std::string name :
       {"<&>\"'.qcow2", "a\x1b[31m\n", "\xff\xfe\xc3(", "\xef\xbf\xbf",
        "\xed\xa0\x80", "\xc2\x85", "caf\xc3\xa9"}) {
    cli::BlockMap map(4096, cli::kSvgColumns, cli::kSvgRows);
    map.Add({.start = 0, .length = 4096, .kind = MapKind::kData});
    WriteHostFile(folder / "map.svg", cli::FormatMapAsSvg(map, name));
    EXPECT_THAT(ParseSvg(folder / "map.svg"),
                testing::ElementsAre("all 4096", "data 4096"));
  }
}

TEST(MapText, FileNamesCannotDriveTheTerminal) {
  const MapExtent extent = {
      .length = 512, .kind = MapKind::kData, .host_offset = 0};
  EXPECT_THAT(cli::FormatMapLine(extent, "a\x1b[31m", 1),
              Not(HasSubstr("\x1b")));
  EXPECT_EQ(json::parse(cli::FormatMapObject(extent, "\xff"))["filename"],
            "\xef\xbf\xbd");
}

TEST(BlockMap, CellsArePowersOf2AndNeverMoreThanFit) {
  for (const uint64_t size :
       {uint64_t{1}, uint64_t{511}, uint64_t{100'000}, uint64_t{1} << 43,
        (uint64_t{1} << 43) + 1, uint64_t{1} << 62}) {
    const cli::BlockMap map(size, 64, 16);
    EXPECT_LE(map.rows(), 16u) << size;
    EXPECT_EQ(map.cell_bytes() & (map.cell_bytes() - 1), 0u);
    EXPECT_GE(map.cells() * map.cell_bytes(), size);
  }
  EXPECT_EQ(cli::BlockMap(0, 64, 16).cells(), 0u);
}

TEST(BlockMap, ACellShowsWhatIsStoredBeforeWhatIsNot) {
  cli::BlockMap map(1024, 64, 16);
  map.Add({.start = 0, .length = 500, .kind = MapKind::kZero});
  map.Add({.start = 500, .length = 5, .kind = MapKind::kCompressed});
  map.Add({.start = 505, .length = 7, .kind = MapKind::kData, .depth = 5});
  map.Add({.start = 512, .length = 500, .kind = MapKind::kUnallocated});
  map.Add({.start = 1012, .length = 12, .kind = MapKind::kZero});
  EXPECT_EQ(map.cell(0).kind, cli::BlockKind::kDeeperBacking);
  EXPECT_DOUBLE_EQ(map.cell(0).share, 7.0 / 512);
  EXPECT_EQ(map.cell(1).kind, cli::BlockKind::kZero);
}

TEST(BlockMap, SharesOfSomethingAreNotNothing) {
  EXPECT_EQ(cli::FormatShare(1, uint64_t{1} << 60), "<0.1 %");
  EXPECT_EQ(cli::FormatShare(0, 1), "0.0 %");
  EXPECT_EQ(cli::FormatShare(1, 8), "12.5 %");
}

}  // namespace
}  // namespace pellucid
