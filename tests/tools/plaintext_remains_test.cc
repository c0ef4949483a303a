// What a report says of LUKS volumes that were made over something else and
// never filled, judged by the bytes that were there before.

#include "engine/plaintext_remains.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSector = 512;
constexpr uint64_t kDisk = 64 * kMiB;

// Nobody's noise has as few different bytes in a sector: 221 are usual.
bool IsPlain(std::span<const std::byte> sector) {
  const std::set<std::byte> different(sector.begin(), sector.end());
  return different.size() < 150;
}

bool IsZero(std::span<const std::byte> sector) {
  return std::ranges::all_of(sector,
                             [](std::byte b) { return b == std::byte{}; });
}

class PlaintextRemainsTest : public EncryptedImageTest {
 protected:
  std::string Tool(const std::vector<std::string>& argv) {
    return RunTool(argv, "", folder_.path());
  }

  // A disk with a file system in which a text is, and noise.
  Bytes MakeOldDisk(const std::string& name) {
    std::filesystem::create_directory(folder_ / "files");
    std::string text;
    while (text.size() < 20 * kMiB) {
      text += fmt::format("Line {} of the text.\n", text.size());
    }
    WriteHostFile(folder_ / "files" / "text", text);
    WriteHostFile(folder_ / "files" / "noise", Noise(4 * kMiB, 1));
    Tool({"truncate", "-s", std::to_string(kDisk), name});
    Tool({"mkfs.ext4", "-q", "-b", "1024", "-L", "old evidence", "-d", "files",
          name});
    Tool({"cp", "--sparse=always", name, "before.raw"});
    return ReadHostFile(folder_ / name);
  }

  void Format(std::vector<std::string> options, const std::string& image) {
    KeyFile();
    std::vector<std::string> command = {
        "cryptsetup", "luksFormat", "-q",
        "--pbkdf",    "pbkdf2",     "--pbkdf-force-iterations",
        "1000",       "--key-file", "key"};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(image);
    Tool(command);
  }

  void Import(uint64_t offset, const Bytes& plaintext, const std::string& image,
              std::vector<std::string> options = {}) {
    WriteHostFile(folder_ / "new", plaintext);
    std::vector<std::string> command = {"import",
                                        "--quiet",
                                        "--no-sparse",
                                        "--offset",
                                        std::to_string(offset),
                                        "--key-file",
                                        "key"};
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {"new", image});
    const ProgramResult result = RunPellucid(command);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }

  // Of `pellucid report`, once unlocked and once not, which must agree.
  json Leaks(std::vector<std::string> arguments) {
    const auto report = [&](const std::vector<std::string>& more) {
      std::vector<std::string> command = {"report", "--json", "--output",
                                          "page.html", "--force"};
      command.insert(command.end(), more.begin(), more.end());
      command.insert(command.end(), arguments.begin(), arguments.end());
      const ProgramResult result = RunPellucid(command);
      EXPECT_EQ(result.exit_code, 0) << result.err;
      return json::parse(result.out).at("leaks");
    };
    const json leaks = report({"--key-file", "key"});
    EXPECT_EQ(report({"--no-unlock"}), leaks);
    return leaks;
  }

  static uint64_t EndOf(const json& range) {
    return range["offset"].get<uint64_t>() + range["length"].get<uint64_t>();
  }
};

TEST_F(PlaintextRemainsTest, WhatWasNeverOverwrittenIsReported) {
  const Bytes before = MakeOldDisk("disk.raw");
  Format({"--type", "luks2"}, "disk.raw");
  constexpr uint64_t kPayload = 16 * kMiB;
  constexpr uint64_t kWritten = 8 * kMiB;
  // Zeros and text, as new file systems have them.
  Bytes plaintext(kWritten);
  std::fill_n(plaintext.begin(), kMiB, std::byte{'t'});
  Import(0, plaintext, "disk.raw");
  const Bytes after = ReadHostFile(folder_ / "disk.raw");

  const json leaks = Leaks({"disk.raw"});
  const json& remains = leaks["volume_remains"];
  // What is plain and as it was; the header's own fields are in front.
  uint64_t plain = 0;
  std::vector<uint64_t> sectors;
  for (uint64_t at = kMiB; at < kDisk; at += kSector) {
    const std::span sector = std::span(after).subspan(at, kSector);
    if (IsZero(sector) || !IsPlain(sector)) continue;
    EXPECT_TRUE(
        std::ranges::equal(sector, std::span(before).subspan(at, kSector)));
    sectors.push_back(at);
    plain += kSector;
  }
  EXPECT_GT(plain, 8 * kMiB);
  EXPECT_EQ(remains["not_encrypted_bytes"], plain);
  EXPECT_EQ(remains["has_more_ranges"], false);
  size_t listed = 0;
  std::set<std::string> types;
  for (const json& range : remains["ranges"]) {
    const uint64_t offset = range["offset"];
    // Ciphertext is not among them.
    EXPECT_TRUE(EndOf(range) <= kPayload || offset >= kPayload + kWritten)
        << range;
    EXPECT_EQ(range["place"],
              offset < kPayload ? "in front of the payload" : "payload");
    listed +=
        static_cast<size_t>(std::ranges::count_if(sectors, [&](uint64_t at) {
          return at >= offset && at < EndOf(range);
        }));
    for (const json& found : range["contents"]) {
      types.insert(found["type"]);
      EXPECT_EQ(found["label"], "old evidence");
      EXPECT_EQ(
          found["uuid"].get<std::string>() + "\n",
          Tool({"blkid", "-p", "-o", "value", "-s", "UUID", "before.raw"}));
      // A copy of the superblock.
      const uint64_t at = found["offset"];
      EXPECT_EQ(std::to_integer<int>(after[at + 56]), 0x53);
      EXPECT_EQ(std::to_integer<int>(after[at + 57]), 0xef);
    }
  }
  EXPECT_EQ(listed, sectors.size());
  EXPECT_THAT(types, ElementsAre("ext4"));
  EXPECT_THAT(
      leaks["findings"].get<std::vector<std::string>>(),
      ElementsAre(HasSubstr(fmt::format("not encrypted and that anybody "
                                        "can read in the file: {}",
                                        plain))));
  // The text is most of it.
  const auto largest = std::ranges::max_element(
      remains["ranges"], {},
      [](const json& range) { return range["length"].get<uint64_t>(); });
  EXPECT_EQ((*largest)["kind"], "text-like");
  const Bytes page = ReadHostFile(folder_ / "page.html");
  EXPECT_THAT(
      std::string(reinterpret_cast<const char*>(page.data()), page.size()),
      HasSubstr("/leaks/volume_remains/not_encrypted_bytes"));
}

TEST_F(PlaintextRemainsTest, AVolumeThatIsFullHasNone) {
  MakeOldDisk("disk.raw");
  Format({"--type", "luks2"}, "disk.raw");
  Bytes plaintext = Noise(48 * kMiB, 2);
  std::fill_n(plaintext.begin() + kMiB, 20 * kMiB, std::byte{0});
  std::fill_n(plaintext.begin() + 30 * kMiB, 10 * kMiB, std::byte{'x'});
  Import(0, plaintext, "disk.raw");
  // Whatever cryptsetup leaves between keyslots and payload is none of this.
  std::vector<std::string> wipe = {
      "dd",     "if=/dev/zero", "of=disk.raw",  "bs=1M",
      "seek=1", "count=15",     "conv=notrunc", "status=none"};
  Tool(wipe);
  const json leaks = Leaks({"disk.raw"});
  EXPECT_THAT(leaks["findings"], IsEmpty());
  EXPECT_THAT(leaks["volume_remains"]["ranges"], IsEmpty());
  EXPECT_EQ(leaks["volume_remains"]["not_encrypted_bytes"], 0);
  EXPECT_GE(leaks["volume_remains"]["examined_bytes"], 63 * kMiB);
  EXPECT_GE(leaks["volume_remains"]["zero_bytes"], 15 * kMiB);
}

TEST_F(PlaintextRemainsTest, ThePayloadOfADetachedHeaderIsLookedThrough) {
  const Bytes before = MakeOldDisk("disk.raw");
  Format({"--type", "luks1", "--header", "header"}, "disk.raw");
  Import(32 * kMiB, Noise(32 * kMiB, 3), "disk.raw", {"--header", "header"});
  const json remains =
      Leaks({"--header", "header", "disk.raw"})["volume_remains"];
  EXPECT_EQ(remains["examined_bytes"], kDisk);
  const json& first = remains["ranges"].at(0);
  ASSERT_THAT(first["contents"], SizeIs(1));
  EXPECT_EQ(first["contents"][0]["type"], "ext4");
  // The primary superblock is still there.
  EXPECT_EQ(first["contents"][0]["offset"], 0);
  for (const json& range : remains["ranges"]) {
    EXPECT_LE(EndOf(range), 32 * kMiB);
  }
}

TEST_F(PlaintextRemainsTest, AHeaderThatIsNotInUseIsNoRemain) {
  Tool({"truncate", "-s", "32M", "disk.raw"});
  Format({"--type", "luks2"}, "disk.raw");
  Tool({"cryptsetup", "luksHeaderBackup", "--header-backup-file", "header",
        "disk.raw"});
  Import(0, Noise(kMiB, 4), "disk.raw");
  const json leaks = Leaks({"--header", "header", "disk.raw"});
  EXPECT_THAT(leaks["volume_remains"]["ranges"], IsEmpty());
  EXPECT_THAT(leaks["findings"], IsEmpty());
}

// Sectors are written one by one, between others that never were.
TEST_F(PlaintextRemainsTest, CiphertextAmongZerosIsNoRemain) {
  Tool({"truncate", "-s", "8M", "disk.raw"});
  Format({"--type", "luks1"}, "disk.raw");
  for (const uint64_t sector : {1U, 10U, 11U, 30U, 47U}) {
    Import(sector * kSector, Noise(kSector, sector), "disk.raw");
  }
  const json leaks = Leaks({"disk.raw"});
  EXPECT_THAT(leaks["findings"], IsEmpty());
  const json& remains = leaks["volume_remains"];
  EXPECT_THAT(remains["ranges"], IsEmpty());
  EXPECT_GE(remains["zero_bytes"], 6 * kMiB - 5 * kSector);
  // The header's own fields are left out.
  EXPECT_EQ(remains["examined_bytes"], 8 * kMiB - 592);
}

TEST_F(PlaintextRemainsTest, GapsInFrontAndTheEndBehindAreLookedThrough) {
  Tool({"truncate", "-s", "32M", "disk.raw"});
  Format({"--type", "luks2"}, "disk.raw");
  Import(0, Noise(16 * kMiB, 5), "disk.raw");
  Bytes image = ReadHostFile(folder_ / "disk.raw");
  const std::string text(kSector, 'w');
  const auto put = [&](uint64_t at) {
    std::ranges::copy(std::as_bytes(std::span(text)),
                      image.begin() + static_cast<ptrdiff_t>(at));
  };
  put(1024);              // Behind the binary header.
  put(15 * 1024);         // In the area for JSON.
  put(12 * kMiB);         // Behind the keyslots.
  put(16 * kMiB + 4096);  // In the payload.
  image.resize(image.size() + 300, std::byte{'w'});
  WriteHostFile(folder_ / "disk.raw", image);
  const json remains = Leaks({"disk.raw"})["volume_remains"];
  std::vector<std::string> found;
  for (const json& range : remains["ranges"]) {
    found.push_back(fmt::format(
        "{} {} {} {}", range["offset"].dump(), range["length"].dump(),
        range["kind"].get<std::string>(), range["place"].get<std::string>()));
  }
  EXPECT_THAT(found,
              ElementsAre("1024 512 text-like in front of the payload",
                          "15360 512 text-like in front of the payload",
                          "12582912 512 text-like in front of the payload",
                          "16781312 512 text-like payload",
                          "33554432 300 text-like behind the payload"));
  EXPECT_EQ(remains["not_encrypted_bytes"], 4 * kSector + 300);
}

TEST_F(PlaintextRemainsTest, AVolumeInAQcow2ImageIsLookedThrough) {
  MakeOldDisk("disk.raw");
  Format({"--type", "luks1", "--header", "header"}, "disk.raw");
  Tool({"qemu-img", "convert", "-O", "qcow2", "disk.raw", "disk.qcow2"});
  const json raw = Leaks({"--header", "header", "disk.raw"});
  EXPECT_EQ(Leaks({"--header", "header", "disk.qcow2"})["volume_remains"],
            raw["volume_remains"]);
  EXPECT_THAT(raw["volume_remains"]["ranges"], testing::Not(IsEmpty()));
}

TEST_F(PlaintextRemainsTest, WhatShowsPatternsIsNotJudged) {
  Tool({"truncate", "-s", "20M", "disk.raw"});
  Format({"--type", "luks2", "--cipher", "aes-ecb"}, "disk.raw");
  Import(0, Bytes(kMiB), "disk.raw");
  EXPECT_EQ(Leaks({"disk.raw"})["volume_remains"], nullptr);
}

TEST_F(PlaintextRemainsTest, AQuickReportLooksForNone) {
  Tool({"truncate", "-s", "20M", "disk.raw"});
  Format({"--type", "luks2"}, "disk.raw");
  EXPECT_EQ(Leaks({"--quick", "disk.raw"})["volume_remains"], nullptr);
  MakeImage("disk.qcow2");
  EXPECT_EQ(Leaks({"disk.qcow2"})["volume_remains"], nullptr);
}

// A report that has read the plaintext has seen all ciphertext.
TEST_F(PlaintextRemainsTest, WhatWasSeenIsNotReadAgain) {
  Tool({"truncate", "-s", "20M", "disk.raw"});
  Format({"--type", "luks2"}, "disk.raw");
  Bytes image = ReadHostFile(folder_ / "disk.raw");
  std::fill_n(image.begin() + 17 * kMiB, kMiB, std::byte{'w'});
  WriteHostFile(folder_ / "disk.raw", image);
  OpenOptions options;
  options.image = folder_ / "disk.raw";
  RemainsCollector seen;
  const Bytes noise = Noise(4 * kMiB, 6);
  seen.Note(16 * kMiB, noise, PlaintextRemains::Place::kPayload);
  uint64_t total = 0;
  const auto watch = [&](uint64_t /*done*/, uint64_t all) { total = all; };
  auto remains = FindPlaintextRemains(options, seen, watch);
  ASSERT_TRUE(remains);
  EXPECT_EQ(remains->plain_bytes, 0U);
  EXPECT_LT(total, 16 * kMiB);
  // Half of it is not enough, and not counted twice.
  RemainsCollector half;
  half.Note(16 * kMiB, std::span(noise).first(2 * kMiB),
            PlaintextRemains::Place::kPayload);
  remains = FindPlaintextRemains(options, half, watch);
  ASSERT_TRUE(remains);
  EXPECT_EQ(remains->plain_bytes, kMiB);
  EXPECT_EQ(remains->examined_bytes, total);
}

}  // namespace
}  // namespace pellucid
