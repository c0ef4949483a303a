// `pellucid check`: exit codes, text and JSON.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/file_device.h"
#include "engine/writable_file_device.h"
#include "tests/engine/host_files_fixture.h"
#include "tests/engine/programs_fixture.h"
#include "tests/tools/encrypted_image_fixture.h"

namespace pellucid {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr const char* kAddressSpaceKib = "unlimited";
#else
constexpr const char* kAddressSpaceKib = "327680";
#endif

class CheckCommandTest : public EncryptedImageTest {
 protected:
  // Without a key file: nothing may ask for one.
  ProgramResult Check(std::vector<std::string> words,
                      const std::string& image = "disk.qcow2") {
    words.insert(words.begin(), "check");
    words.push_back(image);
    return RunPellucid(words);
  }

  Bytes Content() { return ReadHostFile(folder_ / "disk.qcow2"); }

  // Stores a refcount of 16 bits.
  void SetRefcount(uint64_t cluster, uint64_t refcount) {
    Bytes image = Content();
    const uint64_t table = LoadNumber(image, 48, 8);
    const uint64_t block = LoadNumber(image, table, 8);
    StoreNumber(image, block + cluster * 2, 2, refcount);
    WriteHostFile(folder_ / "disk.qcow2", image);
  }
  uint64_t Clusters() { return Content().size() / 65536; }

  // An L2 entry that refers to a place behind the end of the file.
  void BreakEntry() {
    Bytes image = Content();
    const uint64_t l1 = LoadNumber(image, 40, 8);
    const uint64_t l2 = LoadNumber(image, l1, 8) & 0x00ff'ffff'ffff'fe00;
    StoreNumber(image, l2, 8, uint64_t{1} << 50);
    WriteHostFile(folder_ / "disk.qcow2", image);
  }

  std::string HashOfDisk() {
    const ProgramResult result =
        RunPellucid({"export", "--key-file", KeyFile(), "--hash", "sha256",
                     "--quiet", "disk.qcow2", "/dev/null"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  }
};

TEST_F(CheckCommandTest, ACleanImageIsExitCode0) {
  MakeImage("disk.qcow2");
  const ProgramResult text = Check({});
  EXPECT_EQ(text.exit_code, 0) << text.out << text.err;
  EXPECT_THAT(text.err, IsEmpty());
  EXPECT_THAT(text.out, AllOf(HasSubstr("disk.qcow2: no errors were found"),
                              HasSubstr(" of 1024 clusters")));
  const ProgramResult quiet = Check({"--quiet"});
  EXPECT_EQ(quiet.exit_code, 0);
  EXPECT_THAT(quiet.out + quiet.err, IsEmpty());
}

TEST_F(CheckCommandTest, DamageIsExitCode2AndIsRepaired) {
  MakeImage("disk.qcow2");
  const std::string hash = HashOfDisk();
  SetRefcount(Clusters() - 1, 0);
  const Bytes damaged = Content();
  const ProgramResult text = Check({});
  EXPECT_EQ(text.exit_code, 2);
  EXPECT_THAT(text.out,
              AllOf(HasSubstr("corruption: 1 refcounts that are too low"),
                    HasSubstr("disk.qcow2: the cluster at 0x"),
                    HasSubstr("remedy: `pellucid check --repair all "
                              "disk.qcow2` puts them right")));
  EXPECT_EQ(Check({"--quiet"}).exit_code, 2);
  const ProgramResult kept = Check({"--repair", "leaks"});
  EXPECT_EQ(kept.exit_code, 2);
  EXPECT_THAT(kept.out, HasSubstr("not repaired: disk.qcow2: "));
  EXPECT_EQ(Content(), damaged);

  const ProgramResult repaired = Check({"--repair", "all"});
  EXPECT_EQ(repaired.exit_code, 0) << repaired.out;
  EXPECT_THAT(repaired.out, AllOf(HasSubstr("corruptions put right"),
                                  HasSubstr("no errors were found")));
  EXPECT_EQ(Check({}).exit_code, 0);
  EXPECT_EQ(HashOfDisk(), hash);
}

TEST_F(CheckCommandTest, LeaksAloneAreExitCode3) {
  MakeImage("disk.qcow2");
  const std::string hash = HashOfDisk();
  WriteHostFile(folder_ / "disk.qcow2", [&] {
    Bytes longer = Content();
    longer.resize((Clusters() + 2) * 65536);
    return longer;
  }());
  SetRefcount(Clusters() - 1, 1);
  SetRefcount(Clusters() - 2, 3);
  const ProgramResult text = Check({});
  EXPECT_EQ(text.exit_code, 3);
  EXPECT_THAT(text.out,
              AllOf(HasSubstr("leak: 2 leaked clusters"),
                    HasSubstr("`pellucid check --repair leaks disk.qcow2`")));
  const ProgramResult repaired = Check({"--repair", "leaks"});
  EXPECT_EQ(repaired.exit_code, 0) << repaired.out;
  EXPECT_THAT(repaired.out, HasSubstr("2 leaked clusters put right"));
  EXPECT_EQ(HashOfDisk(), hash);
}

TEST_F(CheckCommandTest, JsonHasTheNamesOfQemu) {
  MakeImage("disk.qcow2");
  SetRefcount(1, 7);
  BreakEntry();
  const ProgramResult result = Check({"--json"});
  EXPECT_EQ(result.exit_code, 2);
  const auto ours = nlohmann::json::parse(result.out);
  const ProgramResult judge = RunProgram(
      {"qemu-img", "check", "--output=json", "--object",
       "secret,id=key,file=" + (folder_ / KeyFile()).native(), "--image-opts",
       "driver=qcow2,encrypt.format=luks,encrypt.key-secret=key,"
       "file.filename=" +
           (folder_ / "disk.qcow2").native()});
  const auto qemu = nlohmann::json::parse(judge.out);
  for (const auto& [name, value] : qemu.items()) {
    ASSERT_TRUE(ours.contains(name)) << name;
    if (name == "filename") continue;
    EXPECT_EQ(ours[name], value) << name;
  }
  EXPECT_EQ(ours["filename"], "disk.qcow2");
  EXPECT_EQ(ours["corruptions"], 1);
  EXPECT_GE(ours["leaks"], 1);
  EXPECT_EQ(ours["hazards"], 0);
  EXPECT_EQ(ours["warnings"], 0);
  EXPECT_EQ(ours["luks-header-checked"], true);
  EXPECT_TRUE(ours["not-repaired"].is_null());
  const auto& finding = ours["findings"].at(0);
  EXPECT_EQ(finding["kind"], "entry");
  EXPECT_EQ(finding["severity"], "corruption");
  EXPECT_THAT(finding["text"].get<std::string>(),
              HasSubstr("disk.qcow2: L2 entry (byte " +
                        std::to_string(finding["offset"].get<uint64_t>())));
  EXPECT_THAT(finding["remedy"].get<std::string>(),
              HasSubstr("pellucid export --read-only disk.qcow2"));
}

TEST_F(CheckCommandTest, OnlyTheFirstOfAKindArePrinted) {
  MakeImage("disk.qcow2");
  Bytes image = Content();
  const uint64_t l1 = LoadNumber(image, 40, 8);
  const uint64_t l2 = LoadNumber(image, l1, 8) & 0x00ff'ffff'ffff'fe00;
  for (uint64_t at = 0; at < 65536; at += 8) {
    StoreNumber(image, l2 + at, 8, uint64_t{1} << 50);
  }
  WriteHostFile(folder_ / "disk.qcow2", image);
  const ProgramResult result = Check({});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.out, AllOf(HasSubstr("corruption: 8192 table entries"),
                                HasSubstr("... (10 shown)")));
  EXPECT_LT(std::ranges::count(result.out, '\n'), 60);
}

TEST_F(CheckCommandTest, PlaintextInAnEncryptedImageIsAWarning) {
  MakeImage("disk.qcow2");
  // The compressed flag on the first entry in use, which does not matter for
  // the refcounts: one cluster, from its first sector.
  Bytes image = Content();
  const uint64_t l1 = LoadNumber(image, 40, 8);
  uint64_t at = LoadNumber(image, l1, 8) & 0x00ff'ffff'ffff'fe00;
  while (LoadNumber(image, at, 8) == 0) at += 8;
  const uint64_t cluster = LoadNumber(image, at, 8) & 0x00ff'ffff'ffff'fe00;
  StoreNumber(image, at, 8, cluster | uint64_t{1} << 62);
  WriteHostFile(folder_ / "disk.qcow2", image);
  const ProgramResult result = Check({});
  EXPECT_EQ(result.exit_code, 0) << result.out;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("warning: "), HasSubstr("1 compressed clusters"),
                    HasSubstr("as plaintext"), HasSubstr("remedy: ")));
}

TEST_F(CheckCommandTest, WhateverStopsTheCheckIsExitCode1) {
  const std::filesystem::path path = MakeImage("disk.qcow2");
  const struct {
    std::vector<std::string> words;
    const char* text;
  } kMistakes[] = {
      {{"check"}, "IMAGE is missing"},
      {{"check", "--bogus", "disk.qcow2"}, "--bogus"},
      {{"check", "--repair", "some", "disk.qcow2"}, "takes leaks or all"},
      {{"check", "--repair", "all", "--force-share", "disk.qcow2"},
       "--force-share"},
      {{"check", "--format", "vmdk", "disk.qcow2"}, "--format"},
      {{"check", "absent"}, "absent"},
  };
  for (const auto& mistake : kMistakes) {
    const ProgramResult result = RunPellucid(mistake.words);
    EXPECT_EQ(result.exit_code, 1) << result.err;
    EXPECT_THAT(result.err, AllOf(testing::StartsWith("pellucid: "),
                                  HasSubstr(mistake.text)));
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    EXPECT_THAT(result.out, IsEmpty());
  }
  {
    const auto writer = WritableFileDevice::Open(path);
    EXPECT_EQ(Check({}).exit_code, 1);
    EXPECT_EQ(Check({"--force-share"}).exit_code, 0);
  }
  SetRefcount(1, 7);
  const Bytes damaged = Content();
  {
    const auto reader = FileDevice::Open(path, FileDevice::Sharing::kExclusive);
    EXPECT_EQ(Check({}).exit_code, 3);
    EXPECT_EQ(Check({"--repair", "leaks"}).exit_code, 1);
  }
  EXPECT_EQ(Content(), damaged);
  Bytes image = damaged;
  StoreNumber(image, 20, 4, 30);  // cluster_bits
  WriteHostFile(path, image);
  const ProgramResult result = Check({});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("cluster_bits (byte 20)"));
}

TEST_F(CheckCommandTest, ThereIsNothingToCheckInPlainBytes) {
  WriteHostFile(folder_ / "raw", Bytes(1 << 20));
  const ProgramResult result = Check({"--json"}, "raw");
  EXPECT_EQ(result.exit_code, 63);
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_THAT(result.err, HasSubstr("raw: is neither qcow2 nor a LUKS volume"));
}

// 8 TiB in clusters of 64 KiB, a table for each of the 16384 entries of the L1
// table: some 320 MiB of address space are enough for the program and its
// libraries.
TEST_F(CheckCommandTest, AnImageOf8TiBTakesLittleMemory) {
  const std::filesystem::path path = folder_ / "disk.qcow2";
  RunTool({"qemu-img", "create", "-q", "-f", "qcow2", path, "8T"});
  std::vector<std::string> write = {"qemu-io", "-f", "qcow2", path};
  for (int i = 0; i < 200; ++i) {
    write.insert(write.end(),
                 {"-c", "write -q " + std::to_string(i * 41) + "G 64k"});
  }
  RunTool(write);
  SetRefcount(0, 3);
  for (const char* repair : {"", " --repair all"}) {
    const ProgramResult result =
        RunProgram({"sh", "-c",
                    fmt::format("ulimit -v {}; exec \"$0\" check{} \"$1\"",
                                kAddressSpaceKib, repair),
                    PELLUCID_PROGRAM, path});
    EXPECT_EQ(result.exit_code, *repair == '\0' ? 3 : 0) << result.err;
    EXPECT_THAT(result.out,
                HasSubstr("200 of 134217728 clusters (0.00%) are allocated"));
  }
  EXPECT_EQ(RunProgram({"qemu-img", "check", path}).exit_code, 0);
}

TEST_F(CheckCommandTest, ControlCharactersInNamesDoNotReachTheTerminal) {
  MakeImage("disk.qcow2");
  const std::string name = "no\x1b[31mname";
  std::filesystem::copy_file(folder_ / "disk.qcow2", folder_ / name);
  SetRefcount(1, 7);
  std::filesystem::copy_file(folder_ / "disk.qcow2", folder_ / name,
                             std::filesystem::copy_options::overwrite_existing);
  const ProgramResult result = Check({}, name);
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("no\\x1b[31mname"), Not(HasSubstr("\x1b"))));
}

}  // namespace
}  // namespace pellucid
