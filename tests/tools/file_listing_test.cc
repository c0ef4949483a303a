// `pellucid report --files`, with fls(1) and mactime(1) of The Sleuth Kit as
// judges.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSector = 512;

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

class FileListingTest : public EncryptedImageTest {
 protected:
  std::string Tool(const std::vector<std::string>& argv,
                   const std::string& input = "") {
    return RunTool(argv, input, folder_.path());
  }

  std::string TextOf(const std::string& file) {
    const Bytes bytes = ReadHostFile(folder_ / file);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // Runs report --files list.body.
  ProgramResult List(const std::string& image,
                     std::vector<std::string> options = {"--json", "--quick"}) {
    options.insert(options.begin(), {"report", "--force", "--files",
                                     "list.body", "--key-file", KeyFile()});
    options.push_back(image);
    return RunPellucid(options);
  }

  // The file "ext4": two files and a link, a folder that is deleted with what
  // is in it, names that are hard to write, an inode that no name is left of.
  void MakeExt4() {
    Tool(
        {
            "sh",
            "-c",
            "mkdir -p in/etc in/gone\n"
            "echo root >in/etc/passwd; echo x >in/secret.txt; echo y >in/lost\n"
            "echo z >in/gone/inner; ln -s ../etc/passwd in/etc/link\n"
            "touch -d '1960-01-01' in/old; touch -d '2110-01-01' in/future\n"
            "truncate -s 16M ext4; mkfs.ext4 -q -d in ext4\n"
            "debugfs -w -f - ext4 2>&1",
        },
        "rm /secret.txt\nrm /gone/inner\nrmdir /gone\nunlink /lost\n"
        "set_inode_field /lost links_count 0\n");
  }

  // The file "fat": KEPT.TXT, a deleted file, and two names in a cluster that
  // belongs to no folder.
  void MakeFat() {
    Tool({"sh", "-c", "truncate -s 16M fat; mkfs.vfat -F 16 -n STICK fat"});
    Bytes fat = ReadHostFile(folder_ / "fat");
    const auto number = [&](size_t at, size_t width) {
      size_t value = 0;
      for (size_t i = width; i-- > 0;) {
        value = value << 8 | std::to_integer<size_t>(fat[at + i]);
      }
      return value;
    };
    const size_t sector = number(11, 2);
    const size_t root =
        (number(14, 2) + number(16, 1) * number(22, 2)) * sector;
    const size_t first_cluster = root + number(17, 2) * 32;
    const size_t cluster = number(13, 1) * sector;
    const auto add = [&](size_t at, std::string_view name, uint8_t first,
                         uint32_t size) {
      std::array<uint8_t, 32> entry = {};
      std::memcpy(entry.data(), name.data(), 11);
      if (name[0] == '?') entry[0] = 0xe5;
      entry[11] = 0x20;  // An ordinary file.
      // 2026-11-26 12:34:56, created, written, and the day of access.
      for (const size_t time : {size_t{14}, size_t{22}}) {
        entry[time] = 0x5c;
        entry[time + 1] = 0x64;
      }
      for (const size_t date : {size_t{16}, size_t{18}, size_t{24}}) {
        entry[date] = 0x7a;
        entry[date + 1] = 0x5d;
      }
      entry[26] = first;
      std::memcpy(entry.data() + 28, &size, sizeof size);
      std::ranges::transform(
          entry, fat.begin() + static_cast<ptrdiff_t>(at),
          [](uint8_t byte) { return static_cast<std::byte>(byte); });
    };
    size_t free = root;
    while (fat[free] != std::byte{0}) free += 32;
    add(free, "KEPT    TXT", 0, 0);
    add(free + 32, "?ONE    DOC", 3, 700);
    add(first_cluster + 50 * cluster, "?RPHAN1 JPG", 4, 900);
    add(first_cluster + 50 * cluster + 32, "?RPHAN2 JPG", 5, 901);
    WriteHostFile(folder_ / "fat", fat);
  }

  // The file "ntfs": a file with a second stream, and deleted ones.
  void MakeNtfs() {
    Tool({"sh", "-c",
          "truncate -s 16M ntfs; mkfs.ntfs -q -F -L data ntfs >/dev/null\n"
          "mkdir mnt; ntfs-3g ntfs mnt; cd mnt\n"
          "mkdir sub; echo a >sub/a; echo b >sub/b; echo c >.x; mkdir .y\n"
          "setfattr -n user.stream -v hidden sub/a\n"
          "setfattr -n user.stream -v hidden .y\n"
          "rm sub/b; mkdir dropped; echo d >dropped/d; rm -r dropped\n"
          "cd ..; fusermount3 -u mnt || umount mnt"});
    // ntfs-3g writes behind.
    for (int i = 0;
         i < 100 &&
         RunProgram({"fuser", "-s", "ntfs"}, "", folder_.path()).exit_code == 0;
         ++i) {
      Tool({"sleep", "0.1"});
    }
  }

  // plain.raw and disk.qcow2: partitions with these files in them and a fourth
  // with nothing.
  void MakeDisk(const std::vector<std::string>& files) {
    Tool({"truncate", "-s", "96M", "plain.raw"});
    Tool({"sfdisk", "--quiet", "plain.raw"},
         "label: gpt\nsize=16MiB\nsize=16MiB\nsize=16MiB\nsize=4MiB\n");
    for (size_t i = 0; i < files.size(); ++i) {
      Tool({"dd", "if=" + files[i], "of=plain.raw", "bs=1M",
            fmt::format("seek={}", 1 + 16 * i), "conv=notrunc,sparse",
            "status=none"});
    }
    Encrypt("plain.raw", "disk.qcow2");
  }

  std::string Fls(const std::string& image, const std::string& prefix,
                  uint64_t first_sector = 0) {
    return Tool(
        {"fls", "-r", "-m", prefix, "-o", std::to_string(first_sector), image});
  }

  std::string FlsOfPartition(size_t number) {
    return Fls("plain.raw", fmt::format("/p{}/", number),
               (1 + 16 * (number - 1)) * kMiB / kSector);
  }
};

TEST_F(FileListingTest, EveryLineIsThatOfFls) {
  MakeExt4();
  MakeFat();
  MakeNtfs();
  MakeDisk({"ext4", "fat", "ntfs"});
  const ProgramResult result = List("disk.qcow2");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::array expected = {FlsOfPartition(1), FlsOfPartition(2),
                               FlsOfPartition(3)};
  EXPECT_EQ(TextOf("list.body"), expected[0] + expected[1] + expected[2]);
  // What was to be among them.
  EXPECT_THAT(expected[0], AllOf(HasSubstr("|/p1/etc/passwd|"),
                                 HasSubstr("/etc/link -> ../etc/passwd|"),
                                 HasSubstr("|/p1/secret.txt (deleted)|"),
                                 HasSubstr("/inner (deleted)|"),
                                 HasSubstr("|/p1/$OrphanFiles")));
  EXPECT_THAT(expected[1], AllOf(HasSubstr("|/p2/KEPT.TXT|"),
                                 HasSubstr("|/p2/_ONE.DOC (deleted)|"),
                                 HasSubstr("/$OrphanFiles/_RPHAN1.JPG")));
  EXPECT_THAT(expected[2],
              AllOf(HasSubstr("|/p3/sub/a:stream|"), HasSubstr("/.y|"),
                    HasSubstr(" ($FILE_NAME)|"), HasSubstr(" (deleted)|")));

  const json listing = json::parse(result.out)["file_listing"];
  EXPECT_EQ(listing["file"], (folder_ / "list.body").native());
  EXPECT_EQ(listing["libtsk_version"],
            Tool({"fls", "-V"}).substr(strlen("The Sleuth Kit ver "), 6));
  EXPECT_EQ(listing["time_zone"], "UTC");
  const json& systems = listing["file_systems"];
  ASSERT_EQ(systems.size(), 4u);
  const std::array types = {"ext4", "fat16", "ntfs"};
  size_t entries = 0;
  size_t deleted = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(i);
    const std::vector<std::string> lines = LinesOf(expected[i]);
    const auto gone = static_cast<size_t>(
        std::ranges::count_if(lines, [](const std::string& line) {
          return line.find(" (deleted") != std::string::npos;
        }));
    EXPECT_GT(gone, 0u);
    EXPECT_EQ(systems[i], json({{"partition", i + 1},
                                {"offset", (1 + 16 * i) * kMiB},
                                {"type", types[i]},
                                {"prefix", fmt::format("/p{}/", i + 1)},
                                {"entries", lines.size()},
                                {"deleted", gone},
                                {"complete", true},
                                {"error", nullptr}}));
    entries += lines.size();
    deleted += gone;
  }
  EXPECT_EQ(listing["entries"], entries);
  EXPECT_EQ(listing["deleted"], deleted);
}

// That there is a partition with nothing that can be listed is told, but is no
// failure.
TEST_F(FileListingTest, APartitionWithoutAKnownFileSystemIsNamed) {
  MakeFat();
  MakeDisk({"fat"});
  const ProgramResult result = List("disk.qcow2");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err,
              HasSubstr("list.body: not all files of partition 4 are listed: "
                        "no file system that libtsk knows"));
  const json report = json::parse(result.out);
  EXPECT_EQ(report["file_listing"]["complete"], false);
  EXPECT_EQ(report["errors"], json::array());
  const json& system = report["file_listing"]["file_systems"][3];
  EXPECT_EQ(system["type"], nullptr);
  EXPECT_EQ(system["complete"], false);
  EXPECT_THAT(system["error"].get<std::string>(), HasSubstr("libtsk knows"));
}

TEST_F(FileListingTest, ADiskWithoutPartitionsIsListedAsAWhole) {
  MakeExt4();
  Encrypt("ext4", "disk.qcow2");
  const ProgramResult result = List("disk.qcow2");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(TextOf("list.body"), Fls("ext4", "/"));
  const json listing = json::parse(result.out)["file_listing"];
  EXPECT_EQ(listing["complete"], true);
  ASSERT_EQ(listing["file_systems"].size(), 1u);
  EXPECT_EQ(listing["file_systems"][0]["partition"], nullptr);
  EXPECT_EQ(listing["file_systems"][0]["prefix"], "/");
}

// FAT knows no zones. That of the examiner's machine does not matter, only what
// he says himself.
TEST_F(FileListingTest, TimesOfFatAreUtcOrWhatTzSays) {
  MakeFat();
  for (const std::string zone : {"", "UTC", "XYZ-5:30", "Europe/Berlin"}) {
    SCOPED_TRACE(zone);
    const ProgramResult result =
        RunProgram({"env", "TZ=" + zone, PELLUCID_PROGRAM, "report", "--json",
                    "--quick", "--force", "--files", "list.body", "fat"},
                   "", folder_.path());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(TextOf("list.body"),
              Tool({"env", "TZ=" + (zone.empty() ? "UTC" : zone), "fls", "-r",
                    "-m", "/", "fat"}));
    EXPECT_EQ(json::parse(result.out)["file_listing"]["time_zone"],
              zone.empty() ? "UTC" : zone);
  }
  List("fat");
  EXPECT_THAT(TextOf("list.body"), HasSubstr("|1795696496|"));  // 12:34:56 UTC
}

TEST_F(FileListingTest, MactimeReadsNamesThatAreHardToWrite) {
  Tool({"sh", "-c",
        "mkdir in; echo 1 >'in/a|b'; ln -s 'to|there' 'in/c|'\n"
        "echo 2 >'in/line\nbreak'; echo 3 >'in/no (deleted)'\n"
        "mkdir 'in/d|'; echo 4 >\"in/d|/$(printf 'esc\\033[31m')\"\n"
        "truncate -s 16M ext4; mkfs.ext4 -q -d in ext4"});
  const ProgramResult result = List("ext4");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string body = TextOf("list.body");
  for (const std::string& line : LinesOf(body)) {
    EXPECT_EQ(std::ranges::count(line, '|'), 10) << line;
    EXPECT_TRUE(std::ranges::none_of(line, [](char c) {
      return std::iscntrl(static_cast<uint8_t>(c));
    })) << line;
  }
  const json listing = json::parse(result.out)["file_listing"];
  EXPECT_EQ(listing["entries"], LinesOf(body).size());
  EXPECT_EQ(listing["deleted"], 0);
  // A line of its own for each, with the bars that the name has.
  const std::string timeline = Tool({"mactime", "-d", "-b", "list.body"});
  for (const char* name :
       {"\"/a|b\"", "\"/c| -> to|there\"", "\"/line^break\"",
        "\"/no (deleted)\"", "\"/d|\"", "\"/d|/esc^[31m\""}) {
    EXPECT_THAT(timeline, HasSubstr(name));
  }
}

// What libtsk does not survive is in docs/threat-model.md. Here the superblock
// is right and what it leads to is not.
TEST_F(FileListingTest, ADamagedFileSystemEndsNoReport) {
  MakeExt4();
  MakeFat();
  // The blocks of the group descriptors, as noise.
  Tool({"sh", "-c",
        "head -c 4096 /dev/zero | tr '\\0' '\\377' | "
        "dd of=ext4 bs=1 seek=2048 conv=notrunc status=none"});
  MakeDisk({"ext4", "fat"});
  const ProgramResult result = List("disk.qcow2", {"--json"});
  EXPECT_EQ(result.exit_code, 4) << result.err;
  const json report = json::parse(result.out);
  const json& systems = report["file_listing"]["file_systems"];
  EXPECT_EQ(systems[0]["type"], "ext4");
  EXPECT_EQ(systems[0]["complete"], false);
  EXPECT_THAT(systems[0]["error"].get<std::string>(), HasSubstr("libtsk: "));
  EXPECT_EQ(systems[1]["complete"], true);
  EXPECT_EQ(TextOf("list.body"), FlsOfPartition(2));
  EXPECT_NE(report["plaintext"], nullptr);
  EXPECT_NE(report["files"], nullptr);
  ASSERT_EQ(report["errors"].size(), 1u);
  EXPECT_EQ(report["errors"][0]["part"], "file_listing");
  EXPECT_THAT(report["errors"][0]["error"].get<std::string>(),
              HasSubstr("not all files of partition 1 are listed: libtsk: "));
}

TEST_F(FileListingTest, AloneItLooksAtNothingElse) {
  MakeExt4();
  Encrypt("ext4", "disk.qcow2");
  const ProgramResult result = List("disk.qcow2", {});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_THAT(result.err, IsEmpty());
  EXPECT_EQ(TextOf("list.body"), Fls("ext4", "/"));
  // It tells what was in an encrypted image.
  EXPECT_EQ(Tool({"stat", "--format=%a", "list.body"}), "600\n");
}

TEST_F(FileListingTest, WhatCannotBeIsRefused) {
  MakeImage("disk.qcow2");
  const Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  WriteHostFile(folder_ / "old.body", "old");
  const auto refusal = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "report");
    const ProgramResult result = RunPellucid(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    return result.err;
  };
  EXPECT_THAT(refusal({"--files", "x", "--no-unlock", "disk.qcow2"}),
              HasSubstr("--no-unlock"));
  EXPECT_THAT(refusal({"--files", "x", "--output", "x", "disk.qcow2"}),
              HasSubstr("at once"));
  EXPECT_THAT(refusal({"--files", "old.body", "disk.qcow2"}),
              HasSubstr("old.body: exists already; --force"));
  EXPECT_THAT(refusal({"--files", "disk.qcow2", "--force", "disk.qcow2"}),
              HasSubstr("not overwritten"));
  EXPECT_EQ(ReadHostFile(folder_ / "disk.qcow2"), image);
  EXPECT_EQ(TextOf("old.body"), "old");
}

TEST_F(FileListingTest, AFullDiskLeavesNoHalfList) {
  MakeExt4();
  const ProgramResult result = RunProgram(
      {"sh", "-c",
       fmt::format("(ulimit -f 1; exec {} report --json --quick --files "
                   "list.body ext4) | cat",
                   PELLUCID_PROGRAM)},
      "", folder_.path());
  EXPECT_THAT(result.err, HasSubstr("list.body"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "list.body"));
  const json report = json::parse(result.out);
  EXPECT_EQ(report["file_listing"], nullptr);
  EXPECT_EQ(report["errors"][0]["part"], "file_listing");
}

// A build without libtsk has no such program beside it.
TEST_F(FileListingTest, WithoutLibtskTheRemedyIsNamed) {
  MakeImage("disk.qcow2");
  Tool({"mkdir", "bin"});
  Tool({"cp", PELLUCID_PROGRAM, "bin/pellucid"});
  // Without a key: it is said before anybody is asked for one.
  const ProgramResult result =
      RunProgram({"bin/pellucid", "report", "--json", "--files", "list.body",
                  "disk.qcow2"},
                 "", folder_.path());
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(
      result.err,
      AllOf(testing::StartsWith("pellucid: "),
            HasSubstr("libexec/pellucid/list-files: is not there"),
            HasSubstr("install libtsk-dev"), HasSubstr("-DPELLUCID_TSK=ON")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "list.body"));
  // All else is as it was.
  EXPECT_EQ(RunProgram({"bin/pellucid", "report", "--json", "--no-unlock",
                        "disk.qcow2"},
                       "", folder_.path())
                .exit_code,
            0);
}

}  // namespace
}  // namespace pellucid
