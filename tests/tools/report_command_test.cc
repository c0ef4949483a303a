// The report, judged by the programs that know the same facts.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
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

constexpr uint64_t kCluster = 65536;
constexpr uint64_t kMiB = 1 << 20;

// What a browser shows for &amp; and the like.
std::string Unescaped(std::string text) {
  for (const auto& [from, to] : {std::pair{"&lt;", "<"},
                                 {"&gt;", ">"},
                                 {"&quot;", "\""},
                                 {"&amp;", "&"}}) {
    text = std::regex_replace(text, std::regex(from), to);
  }
  return text;
}

// The texts of all elements with data-field, by its value.
std::map<std::string, std::string> FieldsOf(const std::string& html) {
  std::map<std::string, std::string> fields;
  const std::regex field("data-field=\"([^\"]*)\"[^>]*>([^<]*)<");
  for (std::sregex_iterator at(html.begin(), html.end(), field), end; at != end;
       ++at) {
    EXPECT_TRUE(fields.emplace((*at)[1], Unescaped((*at)[2])).second)
        << (*at)[1];
  }
  return fields;
}

// What a page has to show for a value.
std::string Shown(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null() || (value.is_structured() && value.empty()))
    return "none";
  return value.dump();
}

class ReportCommandTest : public EncryptedImageTest {
 protected:
  std::string Tool(const std::vector<std::string>& argv,
                   const std::string& input = "") {
    return RunTool(argv, input, folder_.path());
  }

  // With --output page.html, too.
  json Report(std::vector<std::string> arguments) {
    const std::vector<std::string> usual = {
        "report",    "--json",     "--force", "--output",
        "page.html", "--key-file", KeyFile()};
    arguments.insert(arguments.begin(), usual.begin(), usual.end());
    const ProgramResult result = RunPellucid(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }

  std::string Page() {
    const Bytes bytes = ReadHostFile(folder_ / "page.html");
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // plain.raw and disk.qcow2: a GPT with ext4, FAT and swap space.
  void MakePartitionedDisk() {
    Tool({"truncate", "-s", "64M", "plain.raw"});
    Tool({"sfdisk", "--quiet", "plain.raw"},
         "label: gpt\nsize=8MiB, name=\"first one\"\nsize=16MiB\n"
         "size=4MiB, name=\"spare\"\n");
    const auto fill = [&](const std::string& size, const std::string& at_mib,
                          std::vector<std::string> program) {
      Tool({"rm", "-f", "part"});
      Tool({"truncate", "-s", size, "part"});
      program.push_back("part");
      Tool(program);
      Tool({"dd", "if=part", "of=plain.raw", "bs=1M", "seek=" + at_mib,
            "conv=notrunc,sparse", "status=none"});
    };
    fill("8M", "1", {"mkfs.ext4", "-q", "-L", "root <fs>"});
    fill("16M", "9", {"mkfs.vfat", "-F", "16", "-n", "BOOT"});
    fill("4M", "25", {"mkswap", "-q", "-L", "swap"});
    Encrypt("plain.raw", "disk.qcow2");
  }

  std::string Blkid(uint64_t offset, uint64_t size, const std::string& name) {
    const std::string value =
        Tool({"blkid", "-p", "-O", std::to_string(offset), "-S",
              std::to_string(size), "-o", "value", "-s", name, "plain.raw"});
    return value.substr(0, value.find('\n'));
  }

  // Every value of `value` is in `fields`, which loses it.
  void CheckFields(const json& value, const std::string& pointer,
                   std::map<std::string, std::string>& fields) {
    if (value.is_structured() && !value.empty()) {
      const bool is_picture = value.is_object() && value.contains("cells");
      for (const auto& [key, child] : value.items()) {
        if (is_picture && (key == "cells" || key == "fill")) continue;
        CheckFields(child, fmt::format("{}/{}", pointer, key), fields);
      }
      return;
    }
    const auto field = fields.find(pointer);
    ASSERT_NE(field, fields.end()) << pointer;
    const std::string& text = field->second;
    const std::string shown = Shown(value);
    EXPECT_TRUE(text == shown ||
                (value.is_number() && text.starts_with(shown + " (")))
        << pointer << ": " << text << " is not " << shown;
    fields.erase(field);
  }

  void CheckPageShows(const json& report) {
    auto fields = FieldsOf(Page());
    for (const auto& [key, value] : report.items()) {
      CheckFields(value, "/" + key, fields);
    }
    EXPECT_THAT(fields, IsEmpty());
  }

  void CheckPageIsValid() {
    Tool({"xmllint", "--noout", "page.html"});
    const ProgramResult tidy =
        RunProgram({"tidy", "-q", "-e", "page.html"}, "", folder_.path());
    EXPECT_EQ(tidy.exit_code, 0) << tidy.err;
    // Nothing runs, and nothing is fetched.
    const std::string page = Page();
    for (const char* pattern :
         {"<script", "<[^>]* (src|href|on[a-z]+)=", "url\\(", "@import"}) {
      EXPECT_FALSE(std::regex_search(page, std::regex(pattern))) << pattern;
    }
  }
};

TEST_F(ReportCommandTest, PartitionsAndFileSystemsAreThoseOfSfdiskAndBlkid) {
  MakePartitionedDisk();
  const json disk = Report({"disk.qcow2"})["disk"];
  EXPECT_EQ(disk["size"], kImageSize);
  EXPECT_EQ(disk["contents"], json::array());
  const json theirs = json::parse(
      Tool({"sfdisk", "-J", "plain.raw"}))["partitiontable"]["partitions"];
  ASSERT_EQ(theirs.size(), 3u);
  ASSERT_EQ(disk["partitions"].size(), theirs.size());
  for (size_t i = 0; i < theirs.size(); ++i) {
    SCOPED_TRACE(i);
    const json& partition = disk["partitions"][i];
    const uint64_t offset = theirs[i]["start"].get<uint64_t>() * 512;
    const uint64_t size = theirs[i]["size"].get<uint64_t>() * 512;
    EXPECT_EQ(partition["number"], i + 1);
    EXPECT_EQ(partition["offset"], offset);
    EXPECT_EQ(partition["size"], size);
    EXPECT_EQ(partition["label"],
              theirs[i].contains("name") ? theirs[i]["name"] : json(nullptr));
    EXPECT_EQ(partition["scheme"], "gpt");
    EXPECT_EQ(partition["type"], "0fc63daf-8483-4772-8e79-3d69d8477de4");
    ASSERT_EQ(partition["contents"].size(), 1u);
    const json& contents = partition["contents"][0];
    EXPECT_EQ(contents["type"], Blkid(offset, size, "TYPE"));
    EXPECT_EQ(contents["label"], Blkid(offset, size, "LABEL"));
    EXPECT_EQ(contents["uuid"], Blkid(offset, size, "UUID"));
  }
}

TEST_F(ReportCommandTest, ThePageShowsTheFiguresOfTheJsonAndIsValid) {
  MakePartitionedDisk();
  ASSERT_EQ(
      RunPellucid({"snapshot", "create", "--quiet", "disk.qcow2", "tuesday"})
          .exit_code,
      0);
  const json report = Report({"--hash", "sha256,md5", "disk.qcow2"});
  CheckPageShows(report);
  CheckPageIsValid();
  ASSERT_EQ(report["snapshot_disks"].size(), 1u);
  EXPECT_EQ(report["snapshot_disks"][0]["name"], "tuesday");
  EXPECT_EQ(report["snapshot_disks"][0]["disk"], report["disk"]);
  // And the pictures.
  for (const char* pointer : {"/allocation", "/plaintext/entropy"}) {
    for (const json& kind : report.at(json::json_pointer(pointer))["kinds"]) {
      if (kind["bytes"] == 0) continue;
      EXPECT_THAT(Page(),
                  HasSubstr(fmt::format(
                      "<g data-kind=\"{}\" data-bytes=\"{}\">",
                      kind["name"].get<std::string>(), kind["bytes"].dump())));
    }
  }
}

TEST_F(ReportCommandTest, ThePageTellsOfTheListOfFiles) {
  MakePartitionedDisk();
  const json report = Report({"--files", "list.body", "disk.qcow2"});
  EXPECT_EQ(report["file_listing"]["file_systems"].size(), 3u);
  EXPECT_THAT(Page(), HasSubstr("<h2>Files of the file systems</h2>"));
  CheckPageShows(report);
  CheckPageIsValid();
}

TEST_F(ReportCommandTest, HashesAreThoseOfSha256sum) {
  MakePartitionedDisk();
  const json report = Report({"--hash", "sha256,blake2b", "disk.qcow2"});
  EXPECT_EQ(report["plaintext"]["hashes"]["sha256"],
            Sha256(ReadHostFile(folder_ / "plain.raw")));
  EXPECT_EQ(report["plaintext"]["hashes"]["blake2b-512"],
            Tool({"b2sum", "plain.raw"}).substr(0, 128));
  ASSERT_EQ(report["files"].size(), 1u);
  const json& file = report["files"][0];
  EXPECT_EQ(file["hashes"]["sha256"],
            Sha256(ReadHostFile(folder_ / "disk.qcow2")));
  EXPECT_EQ(file["file"], (folder_ / "disk.qcow2").native());
  EXPECT_EQ(file["size"], std::filesystem::file_size(folder_ / "disk.qcow2"));
  EXPECT_EQ(file["inode"].dump() + "\n",
            Tool({"stat", "--format=%i", "disk.qcow2"}));
  EXPECT_EQ(file["unchanged_by_this_report"], true);
}

TEST_F(ReportCommandTest, EveryFileOfAChainIsListed) {
  MakeImage("base.qcow2");
  MakeImage("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2");
  const json report = Report({"--hash", "sha256", "top.qcow2"});
  std::map<std::string, std::string> hashes;
  for (const json& file : report["files"]) {
    hashes[file["file"]] = file["hashes"]["sha256"];
  }
  const std::map<std::string, std::string> expected = {
      {folder_ / "top.qcow2", Sha256(ReadHostFile(folder_ / "top.qcow2"))},
      {folder_ / "base.qcow2", Sha256(ReadHostFile(folder_ / "base.qcow2"))}};
  EXPECT_EQ(hashes, expected);
  EXPECT_EQ(report["plaintext"]["hashes"]["sha256"], Sha256(Plaintext()));
  EXPECT_EQ(report["image"]["backing"]["qcow2"]["luks"]["uuid"],
            json::parse(RunPellucid({"info", "--json", "base.qcow2"})
                            .out)["qcow2"]["luks"]["uuid"]);
}

TEST_F(ReportCommandTest, TheImageIsDescribedAsByInfo) {
  MakeImage("disk.qcow2");
  EXPECT_EQ(Report({"disk.qcow2"})["image"],
            json::parse(RunPellucid({"info", "--json", "disk.qcow2"}).out));
}

// Blocks whose kind is known.
TEST_F(ReportCommandTest, TheEntropyMapTellsTextMixedAndRandom) {
  Bytes plain(8 * kMiB);
  for (size_t i = 0; i < kMiB; ++i) {
    plain[kMiB + i] = static_cast<std::byte>("some words, "[i % 12]);
  }
  const Bytes noise = Noise(2 * kMiB, 3);
  std::ranges::copy(noise, plain.begin() + 3 * kMiB);
  for (size_t i = 0; i < kMiB / 2; ++i) {
    plain[6 * kMiB + i] = static_cast<std::byte>(i % 7);
  }
  WriteHostFile(folder_ / "plain.raw", plain);
  Encrypt("plain.raw", "disk.qcow2");
  const json entropy = Report({"disk.qcow2"})["plaintext"]["entropy"];
  std::map<std::string, uint64_t> bytes;
  for (const json& kind : entropy["kinds"]) bytes[kind["name"]] = kind["bytes"];
  const std::map<std::string, uint64_t> expected = {{"zeros", 9 * kMiB / 2},
                                                    {"text-like", kMiB},
                                                    {"mixed", kMiB / 2},
                                                    {"random", 2 * kMiB}};
  EXPECT_EQ(bytes, expected);
  // One cell has one block here.
  ASSERT_EQ(entropy["cell_bytes"], 4096);
  EXPECT_EQ(entropy["cells"],
            std::string(256, '0') + std::string(256, '1') +
                std::string(256, '0') + std::string(512, '3') +
                std::string(256, '0') + std::string(128, '2') +
                std::string(384, '0'));
}

TEST_F(ReportCommandTest, TheAllocationIsThatOfQemuImgMap) {
  MakeImage("disk.qcow2");
  const json allocation = Report({"--no-unlock", "disk.qcow2"})["allocation"];
  uint64_t data = 0;
  const json map = json::parse(
      Tool({"qemu-img", "map", "--output=json", "--object",
            "secret,id=s,file=" + KeyFile(), "--image-opts",
            "driver=qcow2,file.filename=disk.qcow2,encrypt.key-secret=s"}));
  for (const json& extent : map) {
    if (extent["data"]) data += extent["length"].get<uint64_t>();
  }
  for (const json& kind : allocation["kinds"]) {
    if (kind["name"] == "data") {
      EXPECT_EQ(kind["bytes"], data);
    }
  }
  EXPECT_GE(data, kDataLength);
}

TEST_F(ReportCommandTest, WithoutUnlockingNothingNeedsAKey) {
  MakeImage("disk.qcow2");
  const ProgramResult result = RunPellucid(
      {"report", "--json", "--no-unlock", "--hash", "sha256", "disk.qcow2"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report["report"]["unlocked"], false);
  EXPECT_EQ(report["disk"], nullptr);
  EXPECT_EQ(report["plaintext"], nullptr);
  EXPECT_EQ(report["image"]["qcow2"]["luks"]["keyslots"].size(), 1u);
  EXPECT_EQ(report["files"][0]["hashes"]["sha256"],
            Sha256(ReadHostFile(folder_ / "disk.qcow2")));
}

TEST_F(ReportCommandTest, AQuickOneReadsNoData) {
  MakePartitionedDisk();
  const json report = Report({"--quick", "disk.qcow2"});
  EXPECT_EQ(report["disk"]["partitions"].size(), 3u);
  EXPECT_EQ(report["plaintext"], nullptr);
  EXPECT_EQ(report["leaks"]["unreferenced_clusters"], nullptr);
  CheckPageShows(report);
}

TEST_F(ReportCommandTest, AnImageWithoutLeaksHasNoFindings) {
  MakeImage("disk.qcow2");
  const json leaks = Report({"disk.qcow2"})["leaks"];
  EXPECT_EQ(leaks["findings"], json::array());
  EXPECT_EQ(leaks["compressed_plaintext_clusters"], 0);
  EXPECT_EQ(leaks["unreferenced_clusters"]["with_data"], 0);
}

TEST_F(ReportCommandTest, ADeletedSnapshotIsReported) {
  MakeImage("disk.qcow2");
  const auto qemu = [&](std::vector<std::string> program,
                        const std::vector<std::string>& what) {
    program.insert(program.end(), {"--object", "secret,id=s,file=" + KeyFile(),
                                   "--image-opts"});
    program.insert(program.end(), what.begin(), what.end());
    program.push_back(
        "driver=qcow2,file.filename=disk.qcow2,encrypt.format=luks,"
        "encrypt.key-secret=s,pass-discard-snapshot=off");
    Tool(program);
  };
  qemu({"qemu-img", "snapshot"}, {"-c", "old"});
  qemu({"qemu-io"},
       {"-c", fmt::format("write -P 0x55 {} {}", kDataOffset, kDataLength)});
  qemu({"qemu-img", "snapshot"}, {"-d", "old"});
  const json leaks = Report({"disk.qcow2"})["leaks"];
  const json& clusters = leaks["unreferenced_clusters"];
  EXPECT_EQ(clusters["random"], kDataLength / kCluster);
  EXPECT_EQ(clusters["not_encrypted"], 0);
  // The snapshot's L1 and L2 tables.
  EXPECT_GE(clusters["old_tables"], 1);
  EXPECT_THAT(leaks["findings"].get<std::vector<std::string>>(),
              ElementsAre(HasSubstr("with ciphertext of earlier states")));
  // The key is not needed for it.
  EXPECT_EQ(Report({"--no-unlock", "disk.qcow2"})["leaks"], leaks);
}

TEST_F(ReportCommandTest, PlaintextFromBeforeTheEncryptionIsReported) {
  Bytes image = ReadHostFile(MakeImage("disk.qcow2"));
  image.resize((image.size() + kCluster - 1) / kCluster * kCluster);
  const uint64_t table =
      LoadNumber(image, LoadNumber(image, 40, 8), 8) & 0x00ff'ffff'ffff'fe00;
  const uint64_t end = image.size();
  image.resize(end + 3 * kCluster);
  // One in which a single block is plain, an old table, and zeros.
  const Bytes noise = Noise(kCluster, 5);
  std::ranges::copy(noise, image.begin() + static_cast<ptrdiff_t>(end));
  std::fill_n(image.begin() + static_cast<ptrdiff_t>(end) + 8192, 4096,
              std::byte{'a'});
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(table), kCluster,
              image.begin() + static_cast<ptrdiff_t>(end + kCluster));
  WriteHostFile(folder_ / "disk.qcow2", image);
  const json leaks = Report({"disk.qcow2"})["leaks"];
  const json& clusters = leaks["unreferenced_clusters"];
  EXPECT_EQ(clusters["not_encrypted"], 1);
  EXPECT_EQ(clusters["first_not_encrypted_offset"], end);
  EXPECT_EQ(clusters["old_tables"], 1);
  EXPECT_EQ(clusters["random"], 0);
  EXPECT_EQ(clusters["with_data"], 2);
  EXPECT_THAT(leaks["findings"].get<std::vector<std::string>>(),
              ElementsAre(testing::MatchesRegex(".*not encrypted.*: 1")));
}

TEST_F(ReportCommandTest, CompressedClustersInAnEncryptedImageAreReported) {
  Bytes image = ReadHostFile(MakeImage("both.qcow2"));
  uint64_t entry =
      LoadNumber(image, LoadNumber(image, 40, 8), 8) & 0x00ff'ffff'ffff'fe00;
  while (LoadNumber(image, entry, 8) == 0) entry += 8;
  StoreNumber(image, entry, 8, LoadNumber(image, entry, 8) ^ 3ULL << 62);
  WriteHostFile(folder_ / "both.qcow2", image);
  const json leaks = Report({"--no-unlock", "both.qcow2"})["leaks"];
  EXPECT_EQ(leaks["compressed_plaintext_clusters"], 1);
  EXPECT_THAT(leaks["findings"][0].get<std::string>(),
              testing::MatchesRegex("compressed clusters .*: 1"));
}

TEST_F(ReportCommandTest, HostileNamesStayText) {
  const std::string name = "<script>alert('1')<!--&\"\x1b[31m\xff.qcow2";
  Tool({"truncate", "-s", "8M", "plain.raw"});
  Tool({"mkfs.ext4", "-q", "-L", "<img src=x>&\"", "plain.raw"});
  Encrypt("plain.raw", name);
  ASSERT_EQ(RunPellucid({"snapshot", "create", "--quiet", name, "</td><b>&"})
                .exit_code,
            0);
  const json report = Report({name});
  EXPECT_EQ(report["disk"]["contents"][0]["label"], "<img src=x>&\"");
  EXPECT_EQ(report["snapshot_disks"][0]["name"], "</td><b>&");
  CheckPageIsValid();
  EXPECT_THAT(Page(), AllOf(Not(HasSubstr("<img")), Not(HasSubstr("<b>")),
                            Not(HasSubstr("\x1b"))));
}

TEST_F(ReportCommandTest, EvidenceIsAsItWas) {
  MakePartitionedDisk();
  const auto status = [&] {
    return Tool({"stat", "--format=%x %y %z %s %b %a %h %i", "disk.qcow2"});
  };
  const std::string hash = Sha256(ReadHostFile(folder_ / "disk.qcow2"));
  const std::string before = status();
  ASSERT_EQ(Report({"--hash", "sha256", "--forensic", "--evidence-hash",
                    "--log", "log", "--files", "list.body",
                    "disk.qcow2"})["files"][0]["hashes"]["sha256"],
            hash);
  EXPECT_GT(std::filesystem::file_size(folder_ / "list.body"), 0u);
  EXPECT_EQ(status(), before);
  EXPECT_EQ(Sha256(ReadHostFile(folder_ / "disk.qcow2")), hash);
  const Bytes log = ReadHostFile(folder_ / "log");
  const std::string text(reinterpret_cast<const char*>(log.data()), log.size());
  EXPECT_THAT(text, AllOf(HasSubstr(" report '--json'"),
                          HasSubstr("unchanged: "), Not(HasSubstr("CHANGED"))));
}

TEST_F(ReportCommandTest, CommandVersionAndTimesAreNamed) {
  MakeImage("disk.qcow2");
  const json facts = Report({"--quick", "disk.qcow2"})["report"];
  EXPECT_EQ(facts["version"], PELLUCID_VERSION);
  EXPECT_EQ(facts["command"],
            "pellucid report --json --force --output page.html --key-file key "
            "--quick disk.qcow2");
  const std::string now = Tool({"date", "--utc", "+%Y-%m-%dT%H:"});
  EXPECT_EQ(facts["began"].get<std::string>().substr(0, 14), now.substr(0, 14));
  EXPECT_LE(facts["began"], facts["ended"]);
}

TEST_F(ReportCommandTest, AShellTakesTheCommandAsItIs) {
  MakeImage("it's $HOME.qcow2");
  const json report = Report({"--quick", "it's $HOME.qcow2"});
  std::string words =
      Tool({"sh", "-c",
            "printf '%s\n' " + report["report"]["command"].get<std::string>()});
  EXPECT_THAT(words, testing::StartsWith("pellucid\nreport\n--json\n"));
  EXPECT_THAT(words, testing::EndsWith("\n--quick\nit's $HOME.qcow2\n"));
}

TEST_F(ReportCommandTest, ASparseDiskOfEightTebibytesIsReportedSoon) {
  Tool({"qemu-img", "create", "-q", "-f", "qcow2", "--object",
        "secret,id=s,file=" + KeyFile(), "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "huge.qcow2", "8T"});
  const auto begin = std::chrono::steady_clock::now();
  const json report = Report({"huge.qcow2"});
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
  EXPECT_EQ(report["plaintext"]["entropy"]["kinds"][0]["bytes"],
            uint64_t{8} << 40);
}

TEST_F(ReportCommandTest, ARawVolumeIsReported) {
  Tool({"truncate", "-s", "8M", "plain.raw"});
  Tool({"mkfs.ext4", "-q", "-L", "inside", "plain.raw"});
  KeyFile();
  ASSERT_EQ(RunPellucid({"create", "--quiet", "--key-file", "key", "--kdf",
                         "pbkdf2", "--pbkdf2-iterations", "1000", "--format",
                         "raw", "volume.raw", "8M"})
                .exit_code,
            0);
  ASSERT_EQ(RunPellucid({"import", "--quiet", "--key-file", "key", "plain.raw",
                         "volume.raw"})
                .exit_code,
            0);
  const json report = Report({"--hash", "sha256", "volume.raw"});
  EXPECT_EQ(report["disk"]["contents"][0]["label"], "inside");
  EXPECT_EQ(report["disk"]["partitions"], nullptr);
  EXPECT_EQ(report["leaks"]["unreferenced_clusters"], nullptr);
  EXPECT_EQ(report["plaintext"]["hashes"]["sha256"],
            Sha256(ReadHostFile(folder_ / "plain.raw")));
  CheckPageShows(report);
  CheckPageIsValid();
}

TEST_F(ReportCommandTest, WhatIsDamagedIsNamedAndTheRestReported) {
  Bytes image = ReadHostFile(MakeImage("disk.qcow2"));
  const uint64_t table =
      LoadNumber(image, LoadNumber(image, 40, 8), 8) & 0x00ff'ffff'ffff'fe00;
  StoreNumber(image, table + 8 * (kDataOffset / kCluster), 8,
              uint64_t{1} << 63 | 0x1000200);  // Not a cluster's offset.
  WriteHostFile(folder_ / "disk.qcow2", image);
  const ProgramResult result =
      RunPellucid({"report", "--json", "--output", "page.html", "--key-file",
                   KeyFile(), "disk.qcow2"});
  EXPECT_EQ(result.exit_code, 4) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report["plaintext"], nullptr);
  EXPECT_EQ(report["disk"]["size"], kImageSize);
  ASSERT_GE(report["errors"].size(), 1u);
  EXPECT_EQ(report["errors"][0]["part"], "plaintext");
  EXPECT_THAT(report["errors"][0]["error"].get<std::string>(),
              HasSubstr("disk.qcow2"));
  EXPECT_EQ(report["leaks"]["unreferenced_clusters"]["tables_are_damaged"],
            true);
  CheckPageShows(report);
}

TEST_F(ReportCommandTest, WhatCannotBeIsRefused) {
  const Bytes image = ReadHostFile(MakeImage("disk.qcow2"));
  KeyFile();
  WriteHostFile(folder_ / "old.html", "old");
  const auto refusal = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"report", "--key-file", "key"});
    const ProgramResult result = RunPellucid(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    return result.err;
  };
  EXPECT_THAT(refusal({"disk.qcow2"}), HasSubstr("--json, --output FILE"));
  EXPECT_THAT(refusal({"--output", "old.html", "disk.qcow2"}),
              HasSubstr("--force"));
  EXPECT_THAT(refusal({"--output", "disk.qcow2", "--force", "disk.qcow2"}),
              HasSubstr("not overwritten"));
  EXPECT_THAT(refusal({"--json", "--hash", "sha255", "disk.qcow2"}),
              HasSubstr("sha255"));
  EXPECT_EQ(ReadHostFile(folder_ / "disk.qcow2"), image);
  EXPECT_EQ(ReadHostFile(folder_ / "old.html").size(), 3u);
}

}  // namespace
}  // namespace pellucid
