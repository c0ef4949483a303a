#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/luks/weaknesses.h"
#include "tests/tools/encrypted_image_fixture.h"
#include "tools/info_json.h"
#include "tools/info_text.h"

namespace pellucid {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class InfoCommandTest : public EncryptedImageTest {
 protected:
  json Info(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {"info", "--json"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const ProgramResult result = RunPellucid(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }
};

TEST_F(InfoCommandTest, JsonAgreesWithQemuImg) {
  MakeImage("disk.qcow2");
  const json ours = Info({"disk.qcow2"});
  const json theirs = json::parse(RunTool(
      {"qemu-img", "info", "--output=json", "disk.qcow2"}, "", folder_.path()));
  const json& specific = theirs["format-specific"]["data"];
  EXPECT_EQ(ours["format"], "qcow2");
  EXPECT_EQ(ours["virtual_size"], theirs["virtual-size"]);
  EXPECT_EQ(ours["disk_size"], theirs["actual-size"]);
  EXPECT_EQ(ours["luks"], nullptr);
  EXPECT_EQ(ours["backing"], nullptr);
  const json& qcow2 = ours["qcow2"];
  EXPECT_EQ(qcow2["version"], 3);
  EXPECT_EQ(qcow2["cluster_size"], theirs["cluster-size"]);
  EXPECT_EQ(qcow2["refcount_bits"], specific["refcount-bits"]);
  EXPECT_EQ(qcow2["compression"], specific["compression-type"]);
  EXPECT_EQ(qcow2["encryption"], "luks");
  const json& luks = qcow2["luks"];
  const json& encrypt = specific["encrypt"];
  EXPECT_EQ(luks["version"], 1);
  EXPECT_EQ(luks["place"], "embedded");
  EXPECT_EQ(luks["uuid"], encrypt["uuid"]);
  EXPECT_EQ(luks["hash"], encrypt["hash-alg"]);
  EXPECT_EQ(luks["key_bits"], 512);
  json slots = json::array();
  for (const json& slot : encrypt["slots"]) {
    if (slot["active"]) slots.push_back(slot);
  }
  ASSERT_EQ(luks["keyslots"].size(), slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    const json& slot = luks["keyslots"][i];
    EXPECT_EQ(slot["key_material_offset"], slots[i]["key-offset"]);
    EXPECT_EQ(slot["iterations"], slots[i]["iters"]);
    EXPECT_EQ(slot["stripes"], slots[i]["stripes"]);
  }
}

TEST_F(InfoCommandTest, SnapshotsAreListed) {
  MakeImage("disk.qcow2", "compat=1.1");
  RunTool({"qemu-img", "snapshot", "-c", "before update", "disk.qcow2"}, "",
          folder_.path());
  const json snapshots = Info({"disk.qcow2"})["qcow2"]["snapshots"];
  ASSERT_EQ(snapshots.size(), 1u);
  EXPECT_EQ(snapshots[0]["id"], "1");
  EXPECT_EQ(snapshots[0]["name"], "before update");
  EXPECT_EQ(snapshots[0]["virtual_size"], kImageSize);
  EXPECT_THAT(snapshots[0]["date"].get<std::string>(),
              testing::MatchesRegex("20..-..-..T..:..:..(\\..........?)?Z"));
  const ProgramResult text = RunPellucid({"info", "disk.qcow2"});
  EXPECT_THAT(text.out, HasSubstr("before update"));
  EXPECT_THAT(text.out, HasSubstr("plaintext:   64 MiB (67108864 bytes)"));
}

TEST_F(InfoCommandTest, TheBackingChainIsATree) {
  MakeImage("base.qcow2");
  MakeImage("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2");
  const json info = Info({"top.qcow2"});
  EXPECT_EQ(info["qcow2"]["encryption"], "none");
  EXPECT_EQ(info["qcow2"]["backing_file"], "base.qcow2");
  EXPECT_EQ(info["qcow2"]["backing_format"], "qcow2");
  EXPECT_EQ(info["backing"]["qcow2"]["encryption"], "luks");
  EXPECT_EQ(info["backing"]["backing"], nullptr);
  EXPECT_THAT(RunPellucid({"info", "top.qcow2"}).out,
              HasSubstr("\n    base.qcow2\n      format:"));
}

TEST_F(InfoCommandTest, AllocationIsThatOfQemuImg) {
  MakeImage("disk.qcow2", "compat=1.1");
  const json theirs =
      json::parse(RunTool({"qemu-img", "check", "--output=json", "disk.qcow2"},
                          "", folder_.path()));
  const json ours = Info({"disk.qcow2"})["qcow2"];
  EXPECT_EQ(ours["total_clusters"], theirs["total-clusters"]);
  EXPECT_EQ(ours["allocated_clusters"], theirs["allocated-clusters"]);
  EXPECT_EQ(ours["allocated_clusters"], 49);
  EXPECT_EQ(ours["compressed_clusters"], 0);
  const ProgramResult text = RunPellucid({"info", "disk.qcow2"});
  EXPECT_THAT(text.out, HasSubstr("allocated:   49 of 1024 clusters, 4.8 %\n"));
}

TEST_F(InfoCommandTest, CompressedClustersInAnEncryptedImageAreWarnedOf) {
  MakeImage("plain.qcow2", "compat=1.1");
  RunTool({"qemu-img", "convert", "-c", "-O", "qcow2", "plain.qcow2",
           "compressed.qcow2"},
          "", folder_.path());
  // Without encryption that is nothing to be warned of.
  const json plain = Info({"compressed.qcow2"});
  EXPECT_EQ(plain["qcow2"]["compressed_clusters"], 49);
  EXPECT_EQ(plain["warnings"], json::array());
  EXPECT_THAT(RunPellucid({"info", "compressed.qcow2"}).out,
              HasSubstr("compressed:  49 of them, with zlib\n"));
  // The first entry in use, with the compressed flag in place of the copied
  // one.
  Bytes image = ReadHostFile(MakeImage("both.qcow2"));
  uint64_t entry =
      LoadNumber(image, LoadNumber(image, 40, 8), 8) & 0x00ff'ffff'ffff'fe00;
  while (LoadNumber(image, entry, 8) == 0) entry += 8;
  StoreNumber(image, entry, 8, LoadNumber(image, entry, 8) ^ 3ULL << 62);
  WriteHostFile(folder_ / "both.qcow2", image);
  const json warnings = Info({"both.qcow2"})["warnings"];
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(
      warnings[0].get<std::string>(),
      testing::MatchesRegex("[1-9][0-9]* compressed clusters lie in the "
                            "encrypted image as plaintext"));
  EXPECT_THAT(RunPellucid({"info", "both.qcow2"}).out,
              HasSubstr("\n  warning:     " + warnings[0].get<std::string>()));
}

TEST_F(InfoCommandTest, LegacyAesIsWarnedOf) {
  MakeImage("aes.qcow2", "encrypt.format=aes");
  const json warnings = Info({"aes.qcow2"})["warnings"];
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0].get<std::string>(), HasSubstr("legacy AES"));
}

TEST_F(InfoCommandTest, MarksOfDamageAreWarnedOf) {
  MakeImage("disk.qcow2", "compat=1.1");
  Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  StoreNumber(image, 72, 8, 3);  // Dirty and corrupt.
  WriteHostFile(folder_ / "disk.qcow2", image);
  EXPECT_THAT(Info({"disk.qcow2"})["warnings"].get<std::vector<std::string>>(),
              testing::ElementsAre(HasSubstr("not closed properly"),
                                   HasSubstr("marked as corrupt")));
}

// Entries that refer to nowhere keep nobody from looking at the rest.
TEST_F(InfoCommandTest, DamagedTablesAreNoError) {
  MakeImage("disk.qcow2", "compat=1.1");
  Bytes image = ReadHostFile(folder_ / "disk.qcow2");
  const uint64_t l1 = LoadNumber(image, 40, 8);
  const uint64_t l2 = LoadNumber(image, l1, 8) & 0x00ff'ffff'ffff'fe00;
  StoreNumber(image, l2, 8, uint64_t{1} << 50);
  WriteHostFile(folder_ / "disk.qcow2", image);
  EXPECT_EQ(Info({"disk.qcow2"})["qcow2"]["allocated_clusters"], 50);
}

LuksInfo LuksWith(const KeyslotInfo& keyslot) {
  LuksInfo info;
  info.cipher = "aes";
  info.mode = "xts-plain64";
  info.keyslots.push_back(keyslot);
  return info;
}

TEST(Weaknesses, KeyslotsThatAreCheapToGuess) {
  KeyslotInfo pbkdf2 = {
      .index = 5, .kdf = "pbkdf2-sha256", .iterations = 99999};
  EXPECT_THAT(luks::WeaknessesOf(LuksWith(pbkdf2)),
              testing::ElementsAre("guessing the passphrase of keyslot 5 is "
                                   "cheap: pbkdf2-sha256 with 99999 "
                                   "iterations"));
  pbkdf2.iterations = 100000;
  EXPECT_THAT(luks::WeaknessesOf(LuksWith(pbkdf2)), testing::IsEmpty());
  KeyslotInfo argon2 = {.kdf = "argon2id", .time = 2, .memory_kib = 19455};
  EXPECT_THAT(luks::WeaknessesOf(LuksWith(argon2)),
              testing::ElementsAre(HasSubstr("argon2id with 2 passes")));
  argon2.memory_kib = 19456;
  EXPECT_THAT(luks::WeaknessesOf(LuksWith(argon2)), testing::IsEmpty());
}

TEST(Weaknesses, CiphersThatHideLittle) {
  LuksInfo info;
  info.mode = "ecb";
  info.cipher = "aes";
  EXPECT_THAT(luks::WeaknessesOf(info),
              testing::ElementsAre(HasSubstr("aes-ecb shows which")));
}

TEST_F(InfoCommandTest, ANullCipherIsRefusedAndToldWhy) {
  KeyFile();
  RunTool({PELLUCID_PROGRAM, "create", "--quiet", "--key-file", "key",
           "--format", "raw", "--encryption", "luks1", "--pbkdf2-iterations",
           "1000", "disk.raw", "1M"},
          "", folder_.path());
  Bytes image = ReadHostFile(folder_ / "disk.raw");
  const auto store = [&](uint64_t at, const std::string& name) {
    std::fill_n(image.begin() + static_cast<ptrdiff_t>(at), 32, std::byte{0});
    std::ranges::transform(name, image.begin() + static_cast<ptrdiff_t>(at),
                           [](char c) { return static_cast<std::byte>(c); });
  };
  store(8, "cipher_null");
  store(40, "ecb");
  WriteHostFile(folder_ / "disk.raw", image);
  const ProgramResult result = RunPellucid({"info", "disk.raw"});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.err, HasSubstr("the null cipher, \"cipher_null\", is "
                                    "refused: it encrypts nothing"));
}

TEST_F(InfoCommandTest, AWeakKeyslotIsWarnedOf) {
  KeyFile();
  RunTool({PELLUCID_PROGRAM, "create", "--quiet", "--key-file", "key",
           "--pbkdf2-iterations", "1000", "disk.qcow2", "1M"},
          "", folder_.path());
  const json luks = Info({"disk.qcow2"})["qcow2"]["luks"];
  ASSERT_EQ(luks["warnings"].size(), 1u);
  EXPECT_THAT(luks["warnings"][0].get<std::string>(),
              HasSubstr("keyslot 0 is cheap"));
  EXPECT_THAT(RunPellucid({"info", "disk.qcow2"}).out,
              HasSubstr("    warning:     guessing the passphrase of keyslot "
                        "0 is cheap: pbkdf2-sha256 with 1000 iterations\n"));
}

TEST_F(InfoCommandTest, AMissingBackingFileIsToldNotFatal) {
  MakeImage("base.qcow2", "compat=1.1");
  MakeImage("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2");
  std::filesystem::remove(folder_ / "base.qcow2");
  const json info = Info({"top.qcow2"});
  EXPECT_EQ(info["backing"], nullptr);
  EXPECT_THAT(info["backing_error"].get<std::string>(),
              HasSubstr("base.qcow2"));
}

TEST_F(InfoCommandTest, ErrorsHaveTheirExitCodes) {
  EXPECT_EQ(RunPellucid({"info", "missing.qcow2"}).exit_code, 7);
  EXPECT_EQ(RunPellucid({"info", "."}).exit_code, 2);
  WriteHostFile(folder_ / "short.qcow2", "QFI\xfb");
  EXPECT_EQ(RunPellucid({"info", "--format", "qcow2", "short.qcow2"}).exit_code,
            4);
}

ImageInfo HostileInfo() {
  ImageInfo info;
  info.file = "disk\x1b[2J.qcow2";
  info.format = "qcow2";
  info.qcow2.emplace();
  info.qcow2->encryption = "none";
  info.qcow2->backing_file = "\xff\xfe\n";
  SnapshotInfo snapshot;
  snapshot.id = "\r";
  snapshot.name =
      "\xc2\x9b"
      "31m";
  snapshot.date_seconds = INT64_MAX;
  info.qcow2->snapshots.push_back(snapshot);
  return info;
}

TEST(InfoText, NamesCannotDriveTheTerminal) {
  const std::string text = cli::FormatInfoAsText(HostileInfo());
  for (const char c : text) {
    EXPECT_TRUE(c == '\n' || (static_cast<unsigned char>(c) >= 0x20));
  }
  EXPECT_EQ(text.find("\xc2\x9b"), std::string::npos);
  EXPECT_THAT(text, HasSubstr("disk\\x1b[2J.qcow2"));
}

TEST(InfoText, LongNamesOfSnapshotsAreCutAndWidenNoRow) {
  constexpr size_t kSnapshots = 4000;
  ImageInfo info = HostileInfo();
  SnapshotInfo snapshot;
  snapshot.id = "7";
  snapshot.name = "daily";
  info.qcow2->snapshots.assign(kSnapshots, snapshot);
  info.qcow2->snapshots[5].name = std::string(65535, 'n');
  info.qcow2->snapshots[6].id = std::string(65535, '\x1b');
  info.qcow2->snapshots[7].name.clear();
  for (int i = 0; i < 41; ++i) info.qcow2->snapshots[7].name += "\u00e4";
  info.qcow2->snapshots[8].name = std::string(40, 'f');
  const std::string text = cli::FormatInfoAsText(info);
  EXPECT_LT(text.size(), kSnapshots * 200);
  EXPECT_THAT(text, HasSubstr(" " + std::string(39, 'n') + "\u2026  "));
  EXPECT_THAT(text, HasSubstr(" " + std::string(40, 'f') + "  "));
  EXPECT_THAT(text, HasSubstr("\u00e4\u2026  "));
  EXPECT_EQ(
      json::parse(cli::FormatInfoAsJson(info))["qcow2"]["snapshots"][5]["name"],
      std::string(65535, 'n'));
}

TEST(InfoJson, NamesOfAnyBytesMakeAsciiJson) {
  const std::string text = cli::FormatInfoAsJson(HostileInfo());
  for (const char c : text) {
    EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f));
  }
  EXPECT_EQ(json::parse(text)["file"], "disk\x1b[2J.qcow2");
}

TEST(InfoJson, EveryFieldIsThereWhateverTheImage) {
  const json parsed = json::parse(cli::FormatInfoAsJson(ImageInfo()));
  for (const char* field :
       {"file", "format", "virtual_size", "file_size", "disk_size", "qcow2",
        "luks", "backing", "backing_error", "warnings"}) {
    EXPECT_TRUE(parsed.contains(field)) << field;
  }
}

}  // namespace
}  // namespace pellucid
