#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

TEST_F(InfoCommandTest, SaysWhichFilesAnImageNamesAndWhereTheyAre) {
  const std::filesystem::path data = folder_ / "elsewhere/disk.data";
  std::filesystem::create_directory(folder_ / "elsewhere");
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
           "data_file=elsewhere/disk.data", "disk.qcow2", "1M"},
          "", folder_.path());
  const json found = Info({"disk.qcow2"})["qcow2"];
  EXPECT_EQ(found["data_file"], "elsewhere/disk.data");
  EXPECT_EQ(found["data_file_path"], "elsewhere/disk.data");
  EXPECT_EQ(
      Info({(folder_ / "disk.qcow2").native()})["qcow2"]["data_file_path"],
      data.native());
  EXPECT_THAT(RunPellucid({"info", (folder_ / "disk.qcow2").native()}).out,
              HasSubstr("opened as:   " + data.native()));
  // Refused, they are still named.
  std::filesystem::create_directory(folder_ / "other");
  const json allowed = Info(
      {"--allow-path", "other", "--allow-path", "elsewhere", "disk.qcow2"});
  EXPECT_EQ(allowed["backing_error"], nullptr);
  const json elsewhere = Info({"--allow-path", "other", "disk.qcow2"});
  EXPECT_EQ(elsewhere["qcow2"]["data_file"], "elsewhere/disk.data");
  EXPECT_EQ(elsewhere["qcow2"]["data_file_path"], nullptr);
  EXPECT_THAT(elsewhere["backing_error"].get<std::string>(),
              HasSubstr("--allow-path"));
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
        "luks", "backing", "backing_error"}) {
    EXPECT_TRUE(parsed.contains(field)) << field;
  }
}

}  // namespace
}  // namespace pellucid
